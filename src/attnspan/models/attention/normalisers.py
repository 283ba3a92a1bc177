"""Normalisers: from the scores of a step at the positions that it sees to weights.

A normaliser is a module with ``weights(scores)``. Its parent passes the sizes ``query_size``, Q, and ``heads``. To add
one, write a class here (or in a file of your own) and a yaml in ``conf/decoder/normaliser/``. One that multiplies the
scores first, by a number that depends on query or length, also has ``factor``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.errors import SettingError
from attnspan.models.attention.entmax import entmax, entmax15, in_float32, sparsemax
from attnspan.models.recurrence.recurrence import State


class Normaliser(nn.Module, ABC):
    """Says how much weight each visible position gets."""

    sums_to_one = True
    """The weights of a step do."""

    def __init__(self, *, query_size: int, heads: int) -> None:
        super().__init__()

    @abstractmethod
    def weights(self, scores: Float[Tensor, "B heads T S"]) -> Float[Tensor, "B heads T S"]:
        """The weights: exactly 0 at scores of -inf, which stand where a step does not look. No row has only these."""

    def factor(
        self, visible: Bool[Tensor, "#B #heads #T S"], query: Float[Tensor, "B T Q"]
    ) -> Float[Tensor, "#B #heads #T 1"] | None:
        """What the scores are multiplied with first; None for nothing."""
        return None

    def start(self, mask: Bool[Tensor, "B S"]) -> State:
        """What holds for all steps of an example, each tensor [B, ...]; nothing but of hard attention."""
        return ()

    def choose(self, weights: Float[Tensor, "B heads T S"], *state: Tensor) -> Float[Tensor, "B heads T S"] | None:
        """What the step looks at in place of all positions by their weights: see
        :class:`~attnspan.models.attention.hard.HardSoftmax`. ``state`` is from :meth:`start`."""
        return None

    def forward(
        self,
        scores: Float[Tensor, "B heads T S"],
        visible: Bool[Tensor, "#B #heads #T S"],
        query: Float[Tensor, "B T Q"],
    ) -> Float[Tensor, "B heads T S"]:
        """The weights: exactly 0 where ``visible`` is False, whatever the score there.

        Every row has a visible position. ``query`` is what the scores were made of.
        """
        factor = self.factor(visible, query)
        if factor is not None:
            scores = scores.masked_fill(~visible, 0) * factor  # a product with -inf has no gradient in the factor
        return self.weights(scores.masked_fill(~visible, -torch.inf))


class BuildNormaliser(Protocol):
    """A normaliser class with its own settings filled in (``_partial_: true`` in the config)."""

    def __call__(self, *, query_size: int, heads: int) -> Normaliser:
        """Build the normaliser for these sizes."""


class Softmax(Normaliser):
    """p_j = exp(z_j) / sum_k exp(z_k)  (Bahdanau et al. 2015, eq. 6): every position keeps some weight."""

    def weights(self, scores: Float[Tensor, "B heads T S"]) -> Float[Tensor, "B heads T S"]:
        """They sum to 1."""
        return torch.softmax(scores, dim=-1)


class Sparsemax(Normaliser):
    """p = [z - tau]_+, the point of the simplex that is nearest to z  (Martins and Astudillo 2016, eq. 1).

    A position without weight has no gradient either, so a step that looks at a wrong place does not hear of the right
    one.
    """

    def weights(self, scores: Float[Tensor, "B heads T S"]) -> Float[Tensor, "B heads T S"]:
        """They sum to 1."""
        return sparsemax(scores)


class Entmax15(Normaliser):
    """p = [z / 2 - tau]_+^2, between softmax and sparsemax  (Peters et al. 2019, alpha-entmax with alpha = 1.5)."""

    def weights(self, scores: Float[Tensor, "B heads T S"]) -> Float[Tensor, "B heads T S"]:
        """They sum to 1."""
        return entmax15(scores)


class Entmax(Normaliser):
    """p = [(alpha - 1) z - tau]_+^(1 / (alpha - 1)), alpha = 1 + sigmoid(a)  (Correia et al. 2019, section 3.2).

    Each head learns its a. It starts at 0, where alpha is 1.5.
    """

    def __init__(self, *, query_size: int, heads: int) -> None:
        super().__init__(query_size=query_size, heads=heads)
        self.exponent = nn.Parameter(torch.zeros(heads))  # a

    def weights(self, scores: Float[Tensor, "B heads T S"]) -> Float[Tensor, "B heads T S"]:
        """They sum to 1."""
        return entmax(scores, 1 + torch.sigmoid(self.exponent).view(-1, 1, 1))


class LengthScaledSoftmax(Softmax):
    """p = softmax(z ln n / ln r), n the number of visible positions  (Chiang and Cholak 2022, section 5.3, with r = e).

    In a softmax, the gap that one score has over all others is worth less and less as n grows. Here it is not.

    Args, besides the sizes:
        reference_length: r, the number of positions at which this is the softmax, as the mean length in training; None
            for e, as in the paper.
    """

    def __init__(self, *, query_size: int, heads: int, reference_length: float | None = None) -> None:
        super().__init__(query_size=query_size, heads=heads)
        is_number = isinstance(reference_length, int | float) and not isinstance(reference_length, bool)
        if reference_length is not None and not (is_number and 1 < reference_length < math.inf):
            raise SettingError("reference_length", f"must be a number above 1, or null, not {reference_length!r}")
        self.log_reference = 1.0 if reference_length is None else math.log(reference_length)

    def factor(
        self, visible: Bool[Tensor, "#B #heads #T S"], query: Float[Tensor, "B T Q"]
    ) -> Float[Tensor, "#B #heads #T 1"]:
        """ln n / ln r."""
        return _count(visible, query).log() / self.log_reference


class AdaptiveTemperatureSoftmax(Normaliser):
    """p = softmax(theta z) in evaluation, softmax(z) in training  (Velickovic et al. 2024, section 4 and figure 5).

    theta = max(1, -0.037 H^4 + 0.481 H^3 - 2.3 H^2 + 4.917 H - 1.791) where H, the entropy of softmax(z) in nats, is
    above 0.5, and 1 elsewhere. The paper fitted the polynomial to a model of its own, and applies it to trained models.
    """

    coefficients = (-0.037, 0.481, -2.3, 4.917, -1.791)

    def weights(self, scores: Float[Tensor, "B heads T S"]) -> Float[Tensor, "B heads T S"]:
        """They sum to 1."""
        scores = in_float32(scores)
        if self.training:
            return torch.softmax(scores, dim=-1)
        is_hidden = scores == -torch.inf
        log_weights = torch.log_softmax(scores, dim=-1).masked_fill(is_hidden, 0)
        entropy = -(log_weights.exp().masked_fill(is_hidden, 0) * log_weights).sum(dim=-1, keepdim=True)
        theta = torch.zeros_like(entropy)
        for coefficient in self.coefficients:  # the highest power first
            theta = theta * entropy + coefficient
        theta = torch.where(entropy > 0.5, theta.clamp(min=1), 1)
        scaled = scores.masked_fill(is_hidden, 0) * theta
        return torch.softmax(scaled.masked_fill(is_hidden, -torch.inf), dim=-1)


class ASEntmax(Entmax15):
    """Adaptive-scalable entmax: p = 1.5-entmax(z (1 + beta (ln n)^gamma))  (Vasylenko et al. 2025, section 4).

    beta = softplus(w_beta^T q) and gamma = 2 tanh(w_gamma^T q), of each head and query q. As in the authors' code, n is
    the number of visible positions and one more, so that ln n is not 0 at the first.
    """

    def __init__(self, *, query_size: int, heads: int) -> None:
        super().__init__(query_size=query_size, heads=heads)
        self.size = nn.Linear(query_size, heads, bias=False)  # w_beta
        self.power = nn.Linear(query_size, heads, bias=False)  # w_gamma

    def factor(
        self, visible: Bool[Tensor, "#B #heads #T S"], query: Float[Tensor, "B T Q"]
    ) -> Float[Tensor, "B heads T 1"]:
        """1 + beta (ln n)^gamma."""
        beta, gamma = F.softplus(in_float32(self.size(query))), 2 * torch.tanh(in_float32(self.power(query)))
        beta, gamma = (part.transpose(1, 2).unsqueeze(-1) for part in (beta, gamma))
        return 1 + beta * (1 + _count(visible, query)).log() ** gamma


class Sigmoid(Normaliser):
    """p_j = sigmoid(z_j - ln n), n the number of visible positions  (Ramapuram et al. 2024, section 3).

    Each position is weighed by itself. The weights of a step need not sum to 1.
    """

    sums_to_one = False

    def weights(self, scores: Float[Tensor, "B heads T S"]) -> Float[Tensor, "B heads T S"]:
        """Each between 0 and 1."""
        scores = in_float32(scores)
        return torch.sigmoid(scores - _count(scores != -torch.inf, scores).log())


def _count(visible: Tensor, like: Tensor) -> Tensor:
    """n of each row, at least in float32."""
    return visible.sum(dim=-1, keepdim=True).to(torch.promote_types(like.dtype, torch.float32))
