"""Gaussian mixture attention: bumps that move to the right along the source, whatever stands there."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.errors import SettingError, check_counts, check_numbers
from attnspan.models.attention.location.positions import wide
from attnspan.models.attention.scores import Score
from attnspan.models.attention.step import AttentionStep
from attnspan.models.recurrence.recurrence import State


class MixtureScore(Score):
    """alpha_i(j) ~ sum_k w_ik / sqrt(2 pi sigma_ik^2) exp(-(j - mu_ik)^2 / 2 sigma_ik^2),  mu_i = mu_{i-1} + Delta_i.

    Graves 2013, as in Battenberg et al. 2020, section 2.2. (w^, Delta^, sigma^) = V tanh(W s_i + b), w is the softmax
    of w^, mu_0 = 0, and positions j count from 1. The contents of the source are not seen.

    The papers do not normalise over the positions that there are: a bump beyond the end of the source has no weight
    there, and a narrow one between two positions hardly any. The score is the logarithm of the sum, so here the weights
    sum to 1.

    Args, besides the sizes:
        attention_size: A, features inside tanh.
        components: K, bumps.
    """

    remembers = True
    needs_softmax = True

    def __init__(self, *, query_size: int, memory_size: int, attention_size: int, components: int) -> None:
        super().__init__()
        check_counts(attention_size=attention_size, components=components)
        self.hidden = nn.Linear(query_size, attention_size)
        self.shape = nn.Linear(attention_size, 3 * components)  # w^, Delta^, sigma^
        self.components = components

    @abstractmethod
    def step(self, raw: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Delta from Delta^, in positions."""

    @abstractmethod
    def width(self, raw: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """sigma from sigma^, in positions."""

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S 0"]:
        """Keys without features: only their number is used."""
        return states[..., :0]

    def start(self, keys: Float[Tensor, "B S 0"], mask: Bool[Tensor, "B S"]) -> State:
        """mu_0 = 0, of shape [B, K]."""
        return (wide(keys.new_zeros(len(keys), self.components)),)

    def forward(
        self, query: Float[Tensor, "B 1 Q"], keys: Float[Tensor, "B S 0"], *state: Tensor
    ) -> Float[Tensor, "B 1 S"]:
        """The logarithm of the mixture at each position; ``state`` is mu_{i-1}."""
        weight, step, width = self._raw(query)
        centre, sigma = (state[0] + self.step(step)).unsqueeze(1), self.width(width).unsqueeze(1)
        position = torch.arange(1, keys.size(1) + 1, device=keys.device).view(1, -1, 1)
        height = torch.log_softmax(weight, dim=-1).unsqueeze(1) - sigma.log()  # sqrt(2 pi) makes no difference
        return (height - ((position - centre) / sigma) ** 2 / 2).logsumexp(dim=-1).unsqueeze(1)

    def remember(self, step: AttentionStep, *state: Tensor) -> State:
        """mu_i."""
        return (state[0] + self.step(self._raw(step.query)[1]),)

    def _raw(self, query: Tensor) -> tuple[Tensor, ...]:
        """w^, Delta^ and sigma^ of one step, each [B, K]."""
        return wide(self.shape(torch.tanh(self.hidden(query))).squeeze(1)).chunk(3, dim=-1)


class ExponentialMixtureScore(MixtureScore):
    """Delta = exp(Delta^), sigma = sqrt(exp(sigma^))  (Battenberg et al. 2020, table 1, V1).

    Exponents are limited: a step is at most e^8 positions, and sigma is between e^-4 and e^8.
    """

    def step(self, raw: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """exp(Delta^)."""
        return raw.clamp(max=8.0).exp()

    def width(self, raw: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """sqrt(exp(sigma^))."""
        return (raw / 2).clamp(min=-4.0, max=8.0).exp()


class SoftplusMixtureScore(MixtureScore):
    """Delta = softplus(Delta^), sigma = softplus(sigma^)  (Battenberg et al. 2020, table 1, V2).

    With the initial biases of their V2b a fresh model moves by about one position a step, and sees ten to each side.
    sigma is at least e^-4.

    Args, besides those of :class:`MixtureScore`:
        initial_step: Delta where Delta^ is its bias.
        initial_width: sigma where sigma^ is its bias.
    """

    def __init__(
        self,
        *,
        query_size: int,
        memory_size: int,
        attention_size: int,
        components: int,
        initial_step: float,
        initial_width: float,
    ) -> None:
        super().__init__(
            query_size=query_size, memory_size=memory_size, attention_size=attention_size, components=components
        )
        settings = {"initial_step": initial_step, "initial_width": initial_width}
        for number, (name, value) in enumerate(settings.items(), start=1):
            check_numbers(**{name: value})
            if value == 0:
                raise SettingError(name, "must be more than 0")
            with torch.no_grad():
                bias = self.shape.bias[number * components : (number + 1) * components]
                bias.fill_(value + math.log(-math.expm1(-value)))  # softplus^-1

    def step(self, raw: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """softplus(Delta^)."""
        return F.softplus(raw)

    def width(self, raw: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """softplus(sigma^)."""
        return F.softplus(raw).clamp(min=0.0183)
