"""Reverse a random sequence.

::

    source      7 3 9 4
    target      4 9 3 7
    alignment   3-0 2-1 1-2 0-3     the first output needs the last input
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from attnspan.data.alignment import to_pharaoh
from attnspan.data.corpora.base import GeneratedCorpus
from attnspan.errors import check_counts


@dataclass(frozen=True, kw_only=True)
class Reverse(GeneratedCorpus):
    """Sequences of uniformly drawn symbols; the target is the source in reverse order."""

    aligned: ClassVar[bool] = True

    symbols: int
    """Number of different symbols, written 0, 1, 2 and so on."""

    def examples(self, split: str, lengths: Iterator[int]) -> Iterator[dict[str, Any]]:
        """One sequence per length."""
        draw = random.Random(f"{self.data_seed} {split}")
        alphabet = [str(symbol) for symbol in range(self.symbols)]
        for length in lengths:
            sequence = draw.choices(alphabet, k=length)
            yield {
                "source": " ".join(sequence),
                "target": " ".join(reversed(sequence)),
                "alignment": to_pharaoh(reversed(range(length))),
            }

    def _check(self) -> None:
        super()._check()
        check_counts(symbols=self.symbols)
