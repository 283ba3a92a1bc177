"""Scores: how well does a query fit each memory position?

A score is a module with ``keys(states)``, computed once a source, and ``forward(query, keys)``. Its parent passes the
sizes ``query_size``, Q, features of a query, and ``memory_size``, M. To add one, write a class here (or in a file of
your own) and a yaml in ``conf/decoder/``. A score that remembers earlier steps also has ``start`` and ``remember``, and
sets ``remembers``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.errors import check_counts
from attnspan.models.attention.step import AttentionStep
from attnspan.models.recurrence.recurrence import State


class Score(nn.Module, ABC):
    """How well each query fits each memory position."""

    is_content = True
    """The score depends on the memory's states, so that a window may hide any position from it."""
    remembers = False
    """Earlier weights enter later scores, so that each step waits for the one before."""
    needs_softmax = False
    """The score contains the logarithm of weights, by which only a softmax multiplies."""

    @abstractmethod
    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S A"]:
        """Project the memory, once a source."""

    def forward(
        self, query: Float[Tensor, "B T Q"], keys: Float[Tensor, "B S A"], *state: Tensor
    ) -> Float[Tensor, "B T S"]:
        """Compare queries with keys: by default their inner products. ``state``: see :meth:`start`.

        A position with the score -inf is as one outside of the window.
        """
        return query @ keys.transpose(1, 2)

    def start(self, keys: Float[Tensor, "B S A"], mask: Bool[Tensor, "B S"]) -> State:
        """The state before the first step, each tensor [B, ...]; empty for a score that does not remember.

        ``mask`` is True at real positions. A score that needs it at every step keeps it in its state.
        """
        return ()

    def remember(self, step: AttentionStep, *state: Tensor) -> State:
        """The state after ``step``, in the same shapes."""
        return state


class BuildScore(Protocol):
    """A score class with its own settings filled in (``_partial_: true`` in the config)."""

    def __call__(self, *, query_size: int, memory_size: int) -> Score:
        """Build the score for these sizes."""


class AdditiveScore(Score):
    """e_ij = v_a^T tanh(W_a s_{i-1} + U_a h_j)  (Bahdanau et al. 2015, A.1.2).

    It is also Luong's "concat", v_a^T tanh(W_a [h_t; h_s]), whose W_a is Bahdanau's [W_a, U_a] in one piece.

    Args, besides the sizes:
        attention_size: A, features inside the tanh.
    """

    def __init__(self, *, query_size: int, memory_size: int, attention_size: int) -> None:
        super().__init__()
        check_counts(attention_size=attention_size)
        self.query = nn.Linear(query_size, attention_size, bias=False)  # W_a
        self.key = nn.Linear(memory_size, attention_size, bias=False)  # U_a
        self.energy = nn.Linear(attention_size, 1, bias=False)  # v_a

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S A"]:
        """U_a h_j for all j."""
        return self.key(states)

    def forward(
        self, query: Float[Tensor, "B T Q"], keys: Float[Tensor, "B S A"], *state: Tensor
    ) -> Float[Tensor, "B T S"]:
        """e_ij for all i and j."""
        # tanh x = 2 sigmoid(2x) - 1, because sigmoid is several times cheaper on a CPU.
        twice = torch.add(2 * self.query(query).unsqueeze(2), keys.unsqueeze(1), alpha=2)  # [B, T, S, A]
        return 2 * self.energy(twice.sigmoid_()).squeeze(-1) - self.energy.weight.sum()


class NormalisedAdditiveScore(AdditiveScore):
    """e_ij = g (v_a / |v_a|)^T tanh(W_a s_{i-1} + U_a h_j + b)  (Raffel et al. 2017, eq. 16, without its offset r).

    The length of the energy vector is learned by itself. It starts at g = 1 / sqrt(A).
    """

    def __init__(self, *, query_size: int, memory_size: int, attention_size: int) -> None:
        super().__init__(query_size=query_size, memory_size=memory_size, attention_size=attention_size)
        self.bias = nn.Parameter(torch.zeros(attention_size))  # b
        self.length = nn.Parameter(torch.tensor(attention_size**-0.5))  # g

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S A"]:
        """U_a h_j + b for all j."""
        return super().keys(states) + self.bias

    def forward(
        self, query: Float[Tensor, "B T Q"], keys: Float[Tensor, "B S A"], *state: Tensor
    ) -> Float[Tensor, "B T S"]:
        """e_ij for all i and j."""
        return super().forward(query, keys) * (self.length / self.energy.weight.norm())


class CoverageScore(AdditiveScore):
    """e_ij = v_a^T tanh(W_a s_{i-1} + U_a h_j + V_a C_{i-1,j})  (Tu et al. 2016, section 3.1, "linguistic coverage").

    C_{i,j} = C_{i-1,j} + alpha_ij is the sum of the weights of position j so far; every token has fertility 1.
    """

    remembers = True

    def __init__(self, *, query_size: int, memory_size: int, attention_size: int) -> None:
        super().__init__(query_size=query_size, memory_size=memory_size, attention_size=attention_size)
        self.coverage = nn.Linear(1, attention_size, bias=False)  # V_a

    def start(self, keys: Float[Tensor, "B S A"], mask: Bool[Tensor, "B S"]) -> State:
        """C_0 = 0, of shape [B, S]."""
        return (keys.new_zeros(keys.shape[:2]),)

    def forward(
        self, query: Float[Tensor, "B 1 Q"], keys: Float[Tensor, "B S A"], *state: Tensor
    ) -> Float[Tensor, "B 1 S"]:
        """e_ij of one step i; ``state`` is C_{i-1}."""
        (coverage,) = state
        return super().forward(query, keys + self.coverage(coverage.unsqueeze(-1)))

    def remember(self, step: AttentionStep, *state: Tensor) -> State:
        """C_i = C_{i-1} + alpha_i."""
        return (state[0] + step.weights.squeeze(1),)


class DotScore(Score):
    """score(h_t, h_s) = h_t^T h_s  (Luong et al. 2015, section 3.1, "dot").

    Raises:
        ValueError: the two sizes differ.
    """

    def __init__(self, *, query_size: int, memory_size: int) -> None:
        super().__init__()
        if query_size != memory_size:
            raise ValueError(
                f"model.hidden_size={query_size} and encoder.hidden_size={memory_size} differ, "
                f"and {type(self).__name__} multiplies the decoder's state with the encoder's"
            )

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S M"]:
        """The states h_s themselves."""
        return states


class ScaledDotScore(DotScore):
    """h_t^T h_s / sqrt(Q): the inner product keeps its size when the states grow (Vaswani et al. 2017, eq. 1)."""

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S M"]:
        """h_s / sqrt(Q) for all s."""
        return states / states.size(-1) ** 0.5


class GeneralScore(Score):
    """score(h_t, h_s) = h_t^T W_a h_s  (Luong et al. 2015, section 3.1, "general")."""

    def __init__(self, *, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.key = nn.Linear(memory_size, query_size, bias=False)  # W_a

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S Q"]:
        """W_a h_s for all s."""
        return self.key(states)


class LocationScore(Score):
    """a_t = softmax(W_a h_t)  (Luong et al. 2015, eq. 8, "location"): a function of the target state alone.

    W_a has one row for each source position. As in the paper, short sentences use the top rows only (and the softmax
    is taken over those), and in long sentences the positions without a row get weight exactly 0.

    Args, besides the sizes:
        max_length: number of positions that have a row.
    """

    is_content = False

    def __init__(self, *, query_size: int, memory_size: int, max_length: int) -> None:
        super().__init__()
        check_counts(max_length=max_length)
        self.position = nn.Linear(query_size, max_length, bias=False)  # W_a
        self.max_length = max_length

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S 0"]:
        """Keys without features: only their number is used."""
        return states[..., :0]

    def forward(
        self, query: Float[Tensor, "B T Q"], keys: Float[Tensor, "B S 0"], *state: Tensor
    ) -> Float[Tensor, "B T S"]:
        """W_a h_t, and -inf from position ``max_length`` on."""
        return F.pad(self.position(query), (0, keys.size(1) - self.max_length), value=-torch.inf)  # cuts if negative
