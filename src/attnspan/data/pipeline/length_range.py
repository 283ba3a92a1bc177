"""A range of lengths: of sources or targets, in tokens or as multiples of the longest that a run was trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from attnspan.data.corpora.base import SIDES
from attnspan.errors import InputError, nearest

_END = r"(?:\d+(?:\.\d+)?x|\d+)?"
_RANGE = re.compile(rf"(?:(\w+):)?({_END})(-?)({_END})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class LengthRange:
    """Numbers of tokens of one side, both ends included; None where an end is open."""

    side: str = SIDES[0]
    """``source`` or ``target``; the target's length is that of the reference, without <eos>."""
    shortest: int | None
    longest: int | None

    @classmethod
    def parse(cls, text: str, trained: Mapping[str, int | None] | None = None) -> LengthRange:
        """Parse ``61-120``, ``61-``, ``-60`` or ``60`` source tokens, or ``target:61-120``.

        ``1x-1.5x`` is more than the longest of training, and up to one and a half times as long; so ranges that meet,
        as in ``-1x``, ``1x-2x`` and ``2x-``, have no length in common, and each goes with a bin of the report. ``1x``
        alone is exactly the longest.

        Args:
            text: of the range.
            trained: side to the longest in training, in tokens; None where it is not known.

        Raises:
            InputError: it is none of these, no length is in it, or the longest of training is not known.
        """
        match = _RANGE.fullmatch(text)
        if match is None or not (match[2] or match[4]):
            raise InputError(
                f"length={text}: is not a range of lengths, as in length=61-120, 61-, -60, target:24-48 or 1x-2x"
            )
        side = match[1] or SIDES[0]
        if side not in SIDES:
            raise InputError(f"length={text}: there is no side '{side}'; {nearest(side, SIDES)}")
        lower, upper = match[2], match[4] if match[3] else match[2]
        known = (trained or {}).get(side)
        if known is None and "x" in lower + upper:
            raise InputError(
                f"length={text}: the longest {side} that the run was trained on is not known; give numbers of tokens"
            )
        shortest = _tokens(lower, known) if lower else None
        if shortest is not None and lower.endswith("x") and match[3]:
            shortest += 1  # more than that multiple
        longest = _tokens(upper, known) if upper else None
        if longest == 0 or (shortest is not None and longest is not None and shortest > longest):
            raise InputError(f"length={text}: has no length; the shorter one comes first, as in length=61-120")
        return cls(side=side, shortest=shortest, longest=longest)

    def __contains__(self, tokens: int) -> bool:
        return (self.shortest is None or tokens >= self.shortest) and (self.longest is None or tokens <= self.longest)

    @property
    def identity(self) -> list[int | None] | dict[str, list[int | None]]:
        """In the identity of what has these lengths; that of a range of sources is as before there were others."""
        ends = [self.shortest, self.longest]
        return ends if self.side == SIDES[0] else {self.side: ends}


def _tokens(end: str, longest_trained: int | None) -> int:
    """The tokens of one end of a range; of a multiple, the most that are not above it."""
    return int(Fraction(end[:-1]) * (longest_trained or 0)) if end.endswith("x") else int(end)
