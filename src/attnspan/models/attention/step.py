"""What an attention did in one step: all that a part may remember of it."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AttentionStep:
    """One step, or several at once where no part remembers."""

    query: Float[Tensor, "B T Q"]
    weights: Float[Tensor, "B T S"]
    """Exactly 0 in padding."""
    context: Float[Tensor, "B T M"]
    chosen: Float[Tensor, "B T S"] | None = None
    """Of a monotonic window, with what probability the step stops where; None for other windows."""
