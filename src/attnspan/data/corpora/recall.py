"""Look up keys in a list of key-value pairs.

::

                pairs                   keys to look up
    source      k4 v1  k0 v7  k9 v1     k9 k4
    position     0  1   2  3   4  5      6  7
    target      v1 v1
    alignment   5-0 1-1     each output needs the value behind its key

A key stands for one pair only and is looked up once at most. Two keys may have the same value.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from attnspan.data.alignment import pharaoh
from attnspan.data.corpora.base import GeneratedCorpus, check_count
from attnspan.errors import InputError

SHORTEST = 5
"""Source tokens: two pairs and one key. (Four would leave no room for a key, and three no choice.)"""


@dataclass(frozen=True, kw_only=True)
class Recall(GeneratedCorpus):
    """A third of the source, rounded up, are pairs; the keys to look up, in random order, fill the rest."""

    aligned: ClassVar[bool] = True

    symbols: int
    """Different keys, written k0, k1 and so on, and as many values, v0, v1 and so on."""

    def examples(self, split: str, lengths: Iterator[int]) -> Iterator[dict[str, Any]]:
        """One source for each of ``lengths``."""
        draw = random.Random(f"{self.data_seed} {split}")
        for length in lengths:
            pairs = pairs_in(length)
            keys = draw.sample(range(self.symbols), pairs)
            values = draw.choices(range(self.symbols), k=pairs)
            asked = draw.sample(range(pairs), length - 2 * pairs)
            listed = [f"k{key} v{value}" for key, value in zip(keys, values, strict=True)]
            yield {
                "source": " ".join([*listed, *(f"k{keys[pair]}" for pair in asked)]),
                "target": " ".join(f"v{values[pair]}" for pair in asked),
                "alignment": pharaoh(2 * pair + 1 for pair in asked),
            }

    def check(self) -> None:
        """Refuse lengths that hold no question or more keys than there are.

        Raises:
            InputError: names the key.
        """
        super().check()
        check_count("symbols", self.symbols)
        for key in ("train_lengths", "test_lengths"):
            shortest, longest = getattr(self, key)
            if shortest < SHORTEST:
                raise InputError(f"data.{key}: a source has at least {SHORTEST} tokens, not {shortest}")
            if pairs_in(longest) > self.symbols:
                raise InputError(
                    f"data.{key}: a source of {longest} tokens has {pairs_in(longest)} different keys, "
                    f"but data.symbols={self.symbols}"
                )


def pairs_in(length: int) -> int:
    """Key-value pairs in a source of ``length`` tokens."""
    return -(-length // 3)
