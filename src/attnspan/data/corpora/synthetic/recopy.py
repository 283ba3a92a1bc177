"""ReCopy: each symbol is written once, three or five times, depending on the symbol.

Chowdhury and Caragea 2023, "Monotonic Location Attention for Length Generalization"::

    source      7 0 4                   of 0 ... 9, a third is written once, a third three times
    target      7 7 7 7 7 0 4 4 4
    alignment   0-0 0-1 0-2 0-3 0-4 1-5 2-6 2-7 2-8

The path is monotonic, but the distance between target and source position drifts with the contents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from attnspan.data.corpora.base import RandomSequences
from attnspan.errors import SettingError, check_counts


@dataclass(frozen=True, kw_only=True)
class ReCopy(RandomSequences):
    """Sequences of uniformly drawn symbols, each repeated in the target."""

    repeats: Annotated[Sequence[int], "a list of numbers, as in [1,3,5]"]
    """How often a symbol is written: the alphabet is divided into as many equal parts as there are numbers."""

    def source_positions(self, sequence: Sequence[int]) -> list[int]:
        """Each position as often as its symbol is written."""
        return [i for i, symbol in enumerate(sequence) for _ in range(self.times(symbol))]

    def times(self, symbol: int) -> int:
        """How often ``symbol`` is written."""
        return self.repeats[symbol * len(self.repeats) // self.symbols]

    def _check(self) -> None:
        super()._check()
        if not self.repeats:
            raise SettingError("repeats", "must have at least one number")
        for times in self.repeats:
            check_counts(repeats=times)
