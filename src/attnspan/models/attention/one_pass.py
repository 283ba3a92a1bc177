"""Attention of a step without gradients by kernels that read the memory once: the same numbers in less time.

:class:`~attnspan.models.attention.attention.Attention` is the definition, and a test holds these equal to it. They
cover the softmax over all positions with one head, on a CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnspan.kernels.additive import has_key_factors, key_factors
from attnspan.kernels.backend import uses_numba
from attnspan.kernels.one_step import attend_additively, attend_by_products
from attnspan.models.attention.scores import AdditiveScore, DotScore, GeneralScore, ScaledDotScore, Score
from attnspan.models.memory import Memory

Found = tuple[Float[Tensor, "B T M"], Float[Tensor, "B T S"]]
"""Contexts and weights."""


class OnePass(ABC):
    """Contexts and weights by a kernel."""

    def key_factors(self, keys: Float[Tensor, "B S A"]) -> Float[Tensor, "B A P"] | None:
        """What the kernel reads in place of the keys, computed once a source; None for nothing, or for no kernel."""
        return None

    @abstractmethod
    def __call__(self, query: Float[Tensor, "B T Q"], memory: Memory) -> Found | None:
        """None where the kernel does not compute with such numbers, or is no faster."""


class AdditivePass(OnePass):
    """For Bahdanau's score."""

    def __init__(self, score: AdditiveScore) -> None:
        self._score = score

    def key_factors(self, keys: Float[Tensor, "B S A"]) -> Float[Tensor, "B A P"] | None:
        """exp(-2k)."""
        return key_factors(keys) if has_key_factors(keys) else None

    def __call__(self, query: Float[Tensor, "B T Q"], memory: Memory) -> Found | None:
        """Of any number of queries to each source."""
        projected, energy = self._score.query(query), self._score.energy.weight.squeeze(0)
        if memory.key_factors is None or len({part.dtype for part in (projected, energy, memory.states)}) > 1:
            return None
        return attend_additively(memory.key_factors, memory.states, memory.mask, energy, projected)


class ProductPass(OnePass):
    """For scores that are products q^T h_s: the keys are not read."""

    def __init__(self, score: Score) -> None:
        self._score = score

    def __call__(self, query: Float[Tensor, "B T Q"], memory: Memory) -> Found | None:
        """Of one query to each source; for several, torch's products are as fast."""
        if query.size(1) > 1:
            return None
        asked = self.of_states(query)
        if not uses_numba(asked) or asked.dtype != memory.states.dtype:
            return None
        return attend_by_products(memory.states, memory.mask, asked)

    def of_states(self, query: Float[Tensor, "B 1 Q"]) -> Float[Tensor, "B 1 M"]:
        """What the score multiplies the states with."""
        return query


class ScaledProductPass(ProductPass):
    """q^T h_s / sqrt(Q)."""

    def of_states(self, query: Float[Tensor, "B 1 Q"]) -> Float[Tensor, "B 1 M"]:
        """q / sqrt(Q)."""
        return query / query.size(-1) ** 0.5


class GeneralPass(ProductPass):
    """q^T W_a h_s."""

    def __init__(self, score: GeneralScore) -> None:
        super().__init__(score)
        self._weight = score.key

    def of_states(self, query: Float[Tensor, "B 1 Q"]) -> Float[Tensor, "B 1 M"]:
        """q^T W_a."""
        return torch.matmul(query, self._weight.weight)


_PASSES: dict[type[Score], Callable[[Any], OnePass]] = {
    AdditiveScore: AdditivePass,
    DotScore: ProductPass,
    ScaledDotScore: ScaledProductPass,
    GeneralScore: GeneralPass,
}


def one_pass(score: Score) -> OnePass | None:
    """The kernel for exactly this class of score, for a subclass may compute something else; None where none is."""
    kernel = _PASSES.get(type(score))
    return None if kernel is None else kernel(score)
