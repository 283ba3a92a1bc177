"""Dropout that is drawn twice: by the forward pass, and again by a backward pass that computes activations again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class RepeatedDropout:
    """The same masks in each pass.

    A CPU draws numbers slowly, so each random number decides on four features, with 16 bits for each.
    """

    seed: int
    kept: int
    """Of 2^16 equally likely numbers, those that keep a feature."""

    @classmethod
    def draw(cls, probability: float) -> RepeatedDropout:
        """With a seed from torch's random numbers."""
        kept = min(max(round((1 - probability) * 2**16), 1), 2**16 - 1)
        return cls(seed=int(torch.randint(2**63 - 1, ())), kept=kept)

    @property
    def scale(self) -> float:
        """What kept features are multiplied by."""
        return 2**16 / self.kept

    def masks(self, device: torch.device) -> Masks:
        """At the begin of a pass."""
        return Masks(kept=self.kept, generator=torch.Generator(device).manual_seed(self.seed))


@dataclass(frozen=True)
class Masks:
    """Those of one pass, one after the other."""

    kept: int
    generator: torch.Generator

    def like(self, features: Float[Tensor, "*any"]) -> Bool[Tensor, "*any"]:
        """The next one, True where a feature is kept."""
        size = features.numel()
        numbers = torch.empty(-(-size // 4), dtype=torch.int64, device=features.device)
        numbers.random_(-(2**63), None, generator=self.generator)
        return (numbers.view(torch.int16)[:size] < self.kept - 2**15).view_as(features)
