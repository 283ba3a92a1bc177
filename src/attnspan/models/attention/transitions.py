"""Transitions: the position of a step of hard attention, given that of the step before.

p(a_t = j | a_{t-1} = i) of Wu and Cotterell 2019, "Exact Hard Monotonic Attention for Character-Level Transduction".
All are log-probabilities in float32 at least. Where a probability is 0 they are :data:`IMPOSSIBLE`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.errors import SettingError, check_counts
from attnspan.models.attention.entmax import in_float32
from attnspan.models.attention.scores import BuildScore
from attnspan.models.recurrence.recurrence import State

IMPOSSIBLE = -1e30
"""log 0. It is finite: differences of -inf are NaN, in gradients too."""


class Transition(nn.Module, ABC):
    """p(a_t | a_{t-1}), which depends on the query of step t and on the memory."""

    @abstractmethod
    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S A"]:
        """Project the memory, once a source."""

    @abstractmethod
    def moves(self, query: Float[Tensor, "B T Q"], keys: Float[Tensor, "B S A"], mask: Bool[Tensor, "B S"]) -> State:
        """What :meth:`prior` needs to know of each step, tensors [B, T, ...]: for all steps at once."""

    @abstractmethod
    def prior(self, posterior: Float[Tensor, "B S"], *moves: Tensor) -> Float[Tensor, "B S"]:
        """log sum_i p(a_{t-1} = i) p(a_t = j | a_{t-1} = i), from log p(a_{t-1} = i) and the moves of step t."""


class BuildTransition(Protocol):
    """A transition class with its own settings filled in (``_partial_: true`` in the config)."""

    def __call__(self, *, query_size: int, memory_size: int) -> Transition:
        """Build the transition for these sizes."""


class IndependentTransition(Transition):
    """p(a_t = j) = softmax_j(e_tj), wherever the step before looked  (Wu et al. 2018, order 0).

    Args, besides the sizes:
        score: builds e. It depends on the source and remembers nothing.

    Raises:
        SettingError: the score is another.
    """

    def __init__(self, *, query_size: int, memory_size: int, score: BuildScore) -> None:
        super().__init__()
        self.score = score(query_size=query_size, memory_size=memory_size)
        if self.score.remembers or not self.score.is_content:
            raise SettingError(
                "score", f"must depend on the source and remember nothing, and {type(self.score).__name__} does not"
            )

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S A"]:
        """Those of e."""
        return self.score.keys(states)

    def moves(self, query: Float[Tensor, "B T Q"], keys: Float[Tensor, "B S A"], mask: Bool[Tensor, "B S"]) -> State:
        """log softmax(e_t), [B, T, S]."""
        return (self._scores(query, keys, mask).log_softmax(dim=-1),)

    def prior(self, posterior: Float[Tensor, "B S"], *moves: Tensor) -> Float[Tensor, "B S"]:
        """The softmax."""
        return moves[0]

    def _scores(self, query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        return in_float32(self.score(query, keys)).masked_fill(~mask.unsqueeze(1), IMPOSSIBLE)


class MonotonicTransition(IndependentTransition):
    """p(a_t = j | a_{t-1} = i) = exp e_tj / sum_{k >= i} exp e_tk for j >= i, else 0  (order 0, monotonic).

    The prior is exp(e_tj) sum_{i <= j} p(a_{t-1} = i) / sum_{k >= i} exp e_tk: cumulative sums, and no S x S numbers.
    """

    def moves(self, query: Float[Tensor, "B T Q"], keys: Float[Tensor, "B S A"], mask: Bool[Tensor, "B S"]) -> State:
        """e_tj and log sum_{k >= j} exp e_tk, both [B, T, S]."""
        scores = self._scores(query, keys, mask)
        return scores, scores.flip(-1).logcumsumexp(dim=-1).flip(-1)

    def prior(self, posterior: Float[Tensor, "B S"], *moves: Tensor) -> Float[Tensor, "B S"]:
        """See the class."""
        scores, ahead = moves
        return scores + (posterior - ahead).logcumsumexp(dim=-1)


class OffsetTransition(Transition):
    """p(a_t = i + d | a_{t-1} = i) = softmax_d(W [s_t; h_i] + b), 0 <= d <= w  (order 1, monotonic).

    Positions behind the end have probability 0.

    Args, besides the sizes:
        width: w, the most positions that a step moves by.
    """

    def __init__(self, *, query_size: int, memory_size: int, width: int) -> None:
        super().__init__()
        check_counts(width=width)
        self.width = width
        self.query = nn.Linear(query_size, width + 1)
        self.key = nn.Linear(memory_size, width + 1, bias=False)

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S A"]:
        """W_h h_i."""
        return self.key(states)

    def moves(self, query: Float[Tensor, "B T Q"], keys: Float[Tensor, "B S A"], mask: Bool[Tensor, "B S"]) -> State:
        """log p(a_t = i + d | a_{t-1} = i), [B, T, S, w + 1]."""
        inside = F.pad(mask, (0, self.width)).unfold(1, self.width + 1, 1)
        scores = in_float32(self.query(query).unsqueeze(2) + keys.unsqueeze(1))
        legal = scores.masked_fill(~inside.unsqueeze(1), IMPOSSIBLE)
        return (legal.log_softmax(dim=-1),)

    def prior(self, posterior: Float[Tensor, "B S"], *moves: Tensor) -> Float[Tensor, "B S"]:
        """See the class."""
        paths, S = posterior.unsqueeze(-1) + moves[0], posterior.size(1)
        arriving = [F.pad(paths[:, : S - d, d], (d, 0), value=IMPOSSIBLE) for d in range(min(self.width + 1, S))]
        return torch.stack(arriving).logsumexp(dim=0)
