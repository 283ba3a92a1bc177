"""Composition of look-up tables: apply random functions one after the other, and write every intermediate value.

Liska, Kruszewski and Baroni 2018, "Memorize or generalize?"; with all intermediate values as in Hupkes et al. 2018::

    source      010 t3 t1                  an input of 3 bits, then the tables in the order in which they are applied
    target      010 110 001                t3 takes 010 to 110, and t1 takes 110 to 001
    alignment   0-0 1-1 2-2                each value needs the value before it, and its table

With ``backward: true`` the source is written as functions are, ``t1 t3 010``. The alignment then runs from right to
left.

The tables are the same in all splits. There are few short compositions, so training and test share some of them. The
number is printed when the data is prepared.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from attnspan.data.alignment import to_pharaoh
from attnspan.data.corpora.base import GeneratedCorpus
from attnspan.errors import SettingError, check_counts, check_switches


@dataclass(frozen=True, kw_only=True)
class LookUp(GeneratedCorpus):
    """A source of S tokens has an input and S - 1 uniformly drawn tables."""

    aligned: ClassVar[bool] = True
    minimum_length: ClassVar[tuple[int, str]] = (2, "tokens")
    """An input and one table."""

    tables: int
    """Number of different tables, written t0, t1 and so on: random permutations of all values."""
    bits: int
    """Of an input, at most 8; there are 2 ** bits values."""
    backward: bool
    """Whether the input stands last, and the tables are applied from right to left."""

    def examples(self, split: str, lengths: Iterator[int]) -> Iterator[dict[str, Any]]:
        """One composition per length."""
        values = [f"{value:0{self.bits}b}" for value in range(2**self.bits)]
        draw = random.Random(f"{self.data_seed} tables")
        tables = [draw.sample(values, len(values)) for _ in range(self.tables)]
        draw = random.Random(f"{self.data_seed} {split}")
        for length in lengths:
            value, applied = draw.choice(values), draw.choices(range(self.tables), k=length - 1)
            source, target = [value, *(f"t{number}" for number in applied)], [value]
            for number in applied:
                target.append(tables[number][int(target[-1], 2)])
            order = range(length)[::-1] if self.backward else range(length)
            yield {
                "source": " ".join(source[i] for i in order),
                "target": " ".join(target),
                "alignment": to_pharaoh(order),
            }

    def _check(self) -> None:
        super()._check()
        check_counts(tables=self.tables, bits=self.bits)
        check_switches(backward=self.backward)
        if self.bits > 8:
            raise SettingError("bits", f"must be at most 8, not {self.bits}")
