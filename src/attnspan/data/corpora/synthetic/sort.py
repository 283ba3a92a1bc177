"""Sort the symbols of a random sequence.

::

    source      7 3 9 3
    target      3 3 7 9
    alignment   1p0 3p0 1p1 3p1 0-2 2-3     a symbol that occurs twice may come from either place

No monotonic path leads through the source: what comes next depends on the contents alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from attnspan.data.corpora.base import GeneratedCorpus
from attnspan.errors import check_counts


@dataclass(frozen=True, kw_only=True)
class Sort(GeneratedCorpus):
    """Sequences of uniformly drawn symbols; the target has them in ascending order."""

    aligned: ClassVar[bool] = True

    symbols: int
    """Number of different symbols, written 0, 1, 2 and so on."""

    def examples(self, split: str, lengths: Iterator[int]) -> Iterator[dict[str, Any]]:
        """One sequence per length."""
        draw = random.Random(f"{self.data_seed} {split}")
        for length in lengths:
            sequence = draw.choices(range(self.symbols), k=length)
            target = sorted(sequence)
            positions: dict[int, list[int]] = {}
            for i, symbol in enumerate(sequence):
                positions.setdefault(symbol, []).append(i)
            links = [
                f"{i}{'-' if len(positions[symbol]) == 1 else 'p'}{j}"
                for j, symbol in enumerate(target)
                for i in positions[symbol]
            ]
            yield {
                "source": " ".join(map(str, sequence)),
                "target": " ".join(map(str, target)),
                "alignment": " ".join(links),
            }

    def _check(self) -> None:
        super()._check()
        check_counts(symbols=self.symbols)
