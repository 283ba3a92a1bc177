"""Scores that see the weights of the step before through a convolution."""

from __future__ import annotations

from math import comb, exp, lgamma

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.errors import SettingError, check_counts, check_numbers
from attnspan.kernels.energy import tanh_energy
from attnspan.models.attention.location.positions import all_positions, around, check_filters, first_position, wide
from attnspan.models.attention.scores import AdditiveScore, Score
from attnspan.models.attention.step import AttentionStep
from attnspan.models.recurrence.recurrence import State


class LocationConvolutionScore(AdditiveScore):
    """e_ij = v^T tanh(W s_{i-1} + U h_j + V f_ij + b),  f_i = F * alpha_{i-1}  (Chorowski et al. 2015, eq. 8 and 9).

    alpha_0 is uniform over the source. The paper does not give it; ESPnet and SpeechBrain begin so, too. ESPnet also
    multiplies the scores by 2 unless it is told not to.

    Args, besides those of :class:`~attnspan.models.attention.scores.AdditiveScore`:
        filters: k, rows of F.
        width: positions that a filter sees; odd.
    """

    remembers = True

    def __init__(self, *, query_size: int, memory_size: int, attention_size: int, filters: int, width: int) -> None:
        check_filters(filters=filters, width=width)
        super().__init__(query_size=query_size, memory_size=memory_size, attention_size=attention_size)
        self.filters = nn.Linear(width, filters, bias=False)  # F
        self.location = nn.Linear(filters, attention_size)  # V and b

    def start(self, keys: Float[Tensor, "B S A"], mask: Bool[Tensor, "B S"]) -> State:
        """alpha_0, of shape [B, S]."""
        return (all_positions(keys, mask),)

    def forward(
        self, query: Float[Tensor, "B 1 Q"], keys: Float[Tensor, "B S A"], *state: Tensor
    ) -> Float[Tensor, "B 1 S"]:
        """e_ij of one step i; ``state`` is alpha_{i-1}."""
        features = self.filters(around(state[0], self.filters.in_features))  # [B, S, k]
        inner = self.query(query.squeeze(1)) + self.location.bias
        return tanh_energy(features, self.location.weight, inner, self.energy.weight.squeeze(0), keys).unsqueeze(1)

    def remember(self, step: AttentionStep, *state: Tensor) -> State:
        """alpha_i."""
        return (step.weights.squeeze(1),)


class DynamicConvolutionScore(Score):
    """e_i = v^T tanh(U (F * alpha_{i-1}) + T (G(s_i) * alpha_{i-1}) + b) + log(P * alpha_{i-1}).

    Battenberg et al. 2020, "Location-relative attention mechanisms", eq. 8: static filters F, dynamic filters
    G(s) = V_G tanh(W_G s + b_G), and a fixed causal prior P, the beta-binomial distribution, of mean 1 position a step.
    The contents of the source are not seen. alpha_0 is 1 at position 1. As in the paper the prior is at least 1e-6.

    Coqui takes the softmax over padding too and then sets it to 1e-8. Here padding has no weight.

    Args, besides the sizes:
        attention_size: A, features inside both tanh.
        filters: number of static filters, and of dynamic ones.
        width: positions that a filter sees; odd.
        prior_length: n, the longest step; P has n + 1 taps.
        prior_alpha, prior_beta: of the beta-binomial distribution; its mean is n alpha / (alpha + beta).
    """

    remembers = True
    LEAST_PRIOR = 1e-6
    prior: Tensor

    def __init__(
        self,
        *,
        query_size: int,
        memory_size: int,
        attention_size: int,
        filters: int,
        width: int,
        prior_length: int,
        prior_alpha: float,
        prior_beta: float,
    ) -> None:
        super().__init__()
        check_counts(attention_size=attention_size, prior_length=prior_length)
        check_filters(filters=filters, width=width)
        for name, value in (("prior_alpha", prior_alpha), ("prior_beta", prior_beta)):
            check_numbers(**{name: value})
            if value == 0:
                raise SettingError(name, "must be more than 0")
        self.static = nn.Linear(width, filters, bias=False)  # F
        self.static_features = nn.Linear(filters, attention_size, bias=False)  # U
        self.query = nn.Linear(query_size, attention_size)  # W_G
        self.dynamic = nn.Linear(attention_size, filters * width, bias=False)  # V_G
        self.dynamic_features = nn.Linear(filters, attention_size)  # T and b
        self.energy = nn.Linear(attention_size, 1, bias=False)  # v
        taps = torch.tensor(beta_binomial(prior_length, prior_alpha, prior_beta))
        self.register_buffer("prior", taps.flip(0), persistent=False)

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S 0"]:
        """Keys without features: only their number is used."""
        return states[..., :0]

    def start(self, keys: Float[Tensor, "B S 0"], mask: Bool[Tensor, "B S"]) -> State:
        """alpha_0, of shape [B, S]."""
        return (first_position(keys),)

    def forward(
        self, query: Float[Tensor, "B 1 Q"], keys: Float[Tensor, "B S 0"], *state: Tensor
    ) -> Float[Tensor, "B 1 S"]:
        """e_i of one step; ``state`` is alpha_{i-1}."""
        (previous,) = state
        near = around(previous, self.static.in_features)  # [B, S, width]
        filters = self.dynamic(torch.tanh(self.query(query))).view(len(query), -1, self.static.in_features)
        features = torch.cat([self.static(near), near.to(filters.dtype) @ filters.transpose(1, 2)], dim=-1)
        weight = torch.cat([self.static_features.weight, self.dynamic_features.weight], dim=1)  # U and T
        bias = self.dynamic_features.bias.expand(len(query), -1)
        energies = tanh_energy(features, weight, bias, self.energy.weight.squeeze(0))
        before = F.pad(previous, (len(self.prior) - 1, 0)).unfold(1, len(self.prior), 1)  # [B, S, n + 1]
        prior = (before * self.prior).sum(dim=-1)
        return (energies + prior.clamp(min=self.LEAST_PRIOR).log()).unsqueeze(1)

    def remember(self, step: AttentionStep, *state: Tensor) -> State:
        """alpha_i."""
        return (wide(step.weights.squeeze(1)),)


def beta_binomial(n: int, alpha: float, beta: float) -> list[float]:
    """P(k) = C(n, k) B(k + alpha, n - k + beta) / B(alpha, beta) for k = 0 ... n."""

    def log_beta(a: float, b: float) -> float:
        return lgamma(a) + lgamma(b) - lgamma(a + b)

    return [comb(n, k) * exp(log_beta(k + alpha, n - k + beta) - log_beta(alpha, beta)) for k in range(n + 1)]
