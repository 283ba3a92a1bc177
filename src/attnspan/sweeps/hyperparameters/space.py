"""The space of a hyper-parameter search: for each key of the config, a range of numbers or a few choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attnspan.errors import InputError


@dataclass(frozen=True, kw_only=True)
class NumberRange:
    """Numbers from ``low`` to ``high``, both included; integers if both are. InputError if there are none."""

    low: int | float
    high: int | float
    step: int | float | None = None  # distance between values; None for all real numbers (of integers: 1)
    log: bool = False  # whether to sample on a logarithmic scale

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise InputError(f"the lower end must come first, and {self.low} is greater than {self.high}")
        if self.log and self.low <= 0:
            raise InputError(f"a logarithmic scale needs numbers above 0, and {self.low} is not")
        if self.log and self.step not in (None, 1):
            raise InputError(f"a logarithmic scale cannot have steps of {self.step}")

    @property
    def ends(self) -> tuple[str, ...]:
        """Values to check before anything starts; if they fit, those between them usually do."""
        return tuple(dict.fromkeys((repr(self.low), repr(self.high))))


@dataclass(frozen=True, kw_only=True)
class Choices:
    """A few values, as the command line writes them."""

    values: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, ...]:
        """Values to check before anything starts: all of them."""
        return self.values


Space = Mapping[str, NumberRange | Choices]
"""Maps a key of the config, as the command line writes it, to its values."""


def corners(space: Space) -> list[dict[str, str]]:
    """Settings that represent the space: every end of every key once, with the other keys at their first end."""
    first = {key: part.ends[0] for key, part in space.items()}
    return [first, *({**first, key: end} for key, part in space.items() for end in part.ends[1:])]
