"""How long a hypothesis may become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from jaxtyping import Int
from torch import Tensor

from attnspan.errors import SettingError, check_numbers

_STEEPEST = 2.0
"""The most that the limit grows by source token, in multiples of the longest target over the longest source."""


@dataclass(frozen=True, kw_only=True)
class LengthLimit:
    """A hypothesis of a source with S tokens has at most ``ratio * S + margin`` tokens, <eos> not counted.

    It depends on the example alone, so a hypothesis cannot depend on what else is in the batch.

    Args:
        ratio: tokens for each source token; None for what training showed (:meth:`of_training`).
        margin: tokens for every source; None likewise.
    """

    ratio: float | None
    margin: int | None

    def __post_init__(self) -> None:
        if self.ratio is not None:
            check_numbers(ratio=self.ratio)
        if self.margin is not None:
            check_numbers(margin=self.margin)
            if not isinstance(self.margin, int):
                raise SettingError("margin", f"must be a whole number of at least 0, not {self.margin!r}")
        if self.ratio is not None and self.margin is not None and self.ratio + self.margin < 1:
            raise ValueError(f"ratio {self.ratio} and margin {self.margin} leave no room for a single token")

    @classmethod
    def of_training(cls, *, longest_source: int, longest_target: int, largest_ratio: float) -> Self:
        """The limit that leaves room for what training showed: the longest target, and on top its share of the source.

        Args:
            longest_source: of training, in tokens.
            longest_target: of training, in tokens; the margin.
            largest_ratio: target tokens over source tokens, of one training pair; the ratio, unless it is an outlier,
                more than twice ``longest_target / longest_source``.
        """
        return cls(ratio=min(largest_ratio, _STEEPEST * longest_target / longest_source), margin=longest_target)

    def or_else(self, other: Self) -> Self:
        """This limit with the numbers of ``other`` where it has none."""
        return type(self)(
            ratio=other.ratio if self.ratio is None else self.ratio,
            margin=other.margin if self.margin is None else self.margin,
        )

    def __call__(self, lengths: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Limits for source lengths."""
        if self.ratio is None or self.margin is None:
            raise RuntimeError("the limit is not known until it is filled in from training, see or_else")
        return (self.ratio * lengths.double()).long() + self.margin
