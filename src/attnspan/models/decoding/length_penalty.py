"""What the log p of a hypothesis is divided by, so that beam decoding does not prefer short hypotheses."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from attnspan.errors import check_numbers


class LengthPenalty(ABC):
    """A divisor that does not fall with the length."""

    @abstractmethod
    def __call__(self, tokens: Int[Tensor, "*N"]) -> Shaped[Tensor, "*N"]:
        """The divisor for hypotheses of so many tokens, <eos> counted."""


class NoLengthPenalty(LengthPenalty):
    """1: hypotheses are compared by log p as it is."""

    def __call__(self, tokens: Int[Tensor, "*N"]) -> Shaped[Tensor, "*N"]:
        """1."""
        return torch.ones_like(tokens)


class LengthNormalisation(LengthPenalty):
    """n^a for n tokens; with a = 1, log p of a token on average (Cho et al. 2014b, section 4.2).

    Args:
        exponent: a.
    """

    def __init__(self, *, exponent: float) -> None:
        check_numbers(exponent=exponent)
        self.exponent = exponent

    def __call__(self, tokens: Int[Tensor, "*N"]) -> Shaped[Tensor, "*N"]:
        """n^a."""
        return tokens**self.exponent


class GnmtLengthPenalty(LengthPenalty):
    """((5 + n) / 6)^alpha for n tokens (Wu et al. 2016, equation 14).

    Args:
        alpha: 0 for no penalty; the paper found 0.6 to 0.7 best.
    """

    def __init__(self, *, alpha: float) -> None:
        check_numbers(alpha=alpha)
        self.alpha = alpha

    def __call__(self, tokens: Int[Tensor, "*N"]) -> Shaped[Tensor, "*N"]:
        """((5 + n) / 6)^alpha."""
        return ((5 + tokens) / 6) ** self.alpha
