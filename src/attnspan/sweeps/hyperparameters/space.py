"""What a search may try: for each key of the config, numbers between two ends, or a few words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attnspan.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Numbers from ``low`` to ``high``, both included: whole ones if both are.

    Attributes:
        low: the least.
        high: the greatest.
        step: from one to the next; None for all that lie between (of whole numbers: 1).
        log: whether their logarithms are what is spread evenly.

    Raises:
        InputError: there are no such numbers.
    """

    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise InputError(f"must run from the lower end to the upper one, not from {self.low} to {self.high}")
        if self.log and self.low <= 0:
            raise InputError(f"a logarithm needs numbers above 0, and these begin at {self.low}")
        if self.log and self.step not in (None, 1):
            raise InputError(f"a logarithm and steps of {self.step} do not go together")

    @property
    def ends(self) -> tuple[str, ...]:
        """What to check before anything starts: if these fit, what lies between fits as a rule."""
        return tuple(dict.fromkeys((repr(self.low), repr(self.high))))


@dataclass(frozen=True, kw_only=True)
class Words:
    """A few values, as the command line writes them."""

    values: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, ...]:
        """What to check before anything starts: each of them."""
        return self.values


Space = Mapping[str, Numbers | Words]
"""Key of the config, as the command line writes it, to what it may be."""


def corners(space: Space) -> list[dict[str, str]]:
    """Settings that stand for all: each end of each key once, the other keys at their first."""
    first = {key: part.ends[0] for key, part in space.items()}
    return [first, *({**first, key: end} for key, part in space.items() for end in part.ends[1:])]
