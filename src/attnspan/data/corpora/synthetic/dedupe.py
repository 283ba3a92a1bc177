"""DeDupe: of every run of equal symbols only one is written.

Chowdhury and Caragea 2023, "Monotonic Location Attention for Length Generalization"::

    source      7 7 7 0 4 4
    target      7 0 4
    alignment   0-0 1p0 2p0 3-1 4-2 5p2     any symbol of the run will do; sure is the first

The path is monotonic, with steps as long as the runs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from attnspan.data.corpora.base import GeneratedCorpus
from attnspan.errors import SettingError, check_counts


@dataclass(frozen=True, kw_only=True)
class DeDupe(GeneratedCorpus):
    """Runs of uniformly drawn symbols and lengths; neighbouring runs have different symbols."""

    aligned: ClassVar[bool] = True

    symbols: int
    """Number of different symbols, written 0, 1, 2 and so on."""
    longest_run: int
    """Most equal symbols in a row. A run at the end of a source may be cut."""

    def examples(self, split: str, lengths: Iterator[int]) -> Iterator[dict[str, Any]]:
        """One sequence per length."""
        draw = random.Random(f"{self.data_seed} {split}")
        for length in lengths:
            source: list[int] = []
            target: list[int] = []
            links: list[str] = []
            while len(source) < length:
                symbol = draw.randrange(self.symbols - len(target[-1:]))
                symbol += bool(target) and symbol >= target[-1]  # uniform over the symbols other than the last
                first = len(source)
                source += [symbol] * min(draw.randint(1, self.longest_run), length - first)
                links += [f"{i}{'-' if i == first else 'p'}{len(target)}" for i in range(first, len(source))]
                target.append(symbol)
            yield {
                "source": " ".join(map(str, source)),
                "target": " ".join(map(str, target)),
                "alignment": " ".join(links),
            }

    def _check(self) -> None:
        super()._check()
        check_counts(symbols=self.symbols, longest_run=self.longest_run)
        if self.symbols < 2:
            raise SettingError("symbols", "must be at least 2, so that neighbouring runs can differ")
