"""Translate sentences with names: every word has a word of its own on the other side, and a name stays what it is.

::

    source      u3 u17 Katimo u5
    target      v3 v17 Katimo v5

No name occurs in two splits. Where the vocabulary has room for the words only, names are unknown in training too, and
an arm can learn to copy what it does not know.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from attnspan.data.corpora.base import SPLITS, GeneratedCorpus
from attnspan.errors import SettingError, check_counts

_SYLLABLES = [consonant + vowel for consonant in "bdfgjklmnprstvz" for vowel in "aeiou"]
_MOST = len(_SYLLABLES) ** 3 // len(SPLITS)
"""Names for each split."""


@dataclass(frozen=True, kw_only=True)
class Names(GeneratedCorpus):
    """Sequences of uniformly drawn words, of which every fifth, and at least one, is a name."""

    words: int
    """Number of different words, written u0, u1 and so on in sources, and v0, v1 in targets."""
    names: int
    """Number of different names in each split."""

    def examples(self, split: str, lengths: Iterator[int]) -> Iterator[dict[str, Any]]:
        """One sentence per length."""
        draw, names = random.Random(f"{self.data_seed} {split}"), self.names_of(split)
        for length in lengths:
            words = draw.choices(range(self.words), k=length)
            places = draw.sample(range(length), max(1, length // 5))
            at = dict(zip(places, draw.choices(names, k=len(places)), strict=True))
            yield {
                "source": " ".join(at.get(place, f"u{word}") for place, word in enumerate(words)),
                "target": " ".join(at.get(place, f"v{word}") for place, word in enumerate(words)),
            }

    def names_of(self, split: str) -> list[str]:
        """The names of a split, of three syllables each."""
        numbers = random.Random(f"{self.data_seed} names").sample(range(len(SPLITS) * _MOST), len(SPLITS) * self.names)
        first, n = SPLITS.index(split) * self.names, len(_SYLLABLES)
        syllables = ((number // n**2, number // n % n, number % n) for number in numbers[first : first + self.names])
        return ["".join(_SYLLABLES[part] for part in parts).capitalize() for parts in syllables]

    def _check(self) -> None:
        super()._check()
        check_counts(words=self.words, names=self.names)
        if self.names > _MOST:
            raise SettingError("names", f"must be at most {_MOST}, not {self.names}: there are no more")
