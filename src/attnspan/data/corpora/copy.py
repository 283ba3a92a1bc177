"""Copy a random sequence.

::

    source      7 3 9 3
    target      7 3 9 3
    alignment   0-0 1-1 2-2 3-3     each output needs the input at its own position
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from attnspan.data.alignment import pharaoh
from attnspan.data.corpora.base import GeneratedCorpus, check_count


@dataclass(frozen=True, kw_only=True)
class Copy(GeneratedCorpus):
    """Sequences of symbols drawn evenly, to be said again."""

    aligned: ClassVar[bool] = True

    symbols: int
    """Different symbols, written 0, 1, 2 and so on."""

    def examples(self, split: str, lengths: Iterator[int]) -> Iterator[dict[str, Any]]:
        """One sequence for each of ``lengths``."""
        draw = random.Random(f"{self.data_seed} {split}")
        names = [str(symbol) for symbol in range(self.symbols)]
        for length in lengths:
            sequence = " ".join(draw.choices(names, k=length))
            yield {"source": sequence, "target": sequence, "alignment": pharaoh(range(length))}

    def check(self) -> None:
        """Refuse an alphabet without symbols.

        Raises:
            InputError: names the key.
        """
        super().check()
        check_count("symbols", self.symbols)
