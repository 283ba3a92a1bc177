"""Multi-query associative recall: a fixed number of pairs and of queries, at any distance.

Arora et al. 2024 (Zoology), section 3, for an encoder and a decoder::

    pairs: 2, queries: 1, gaps: spread
    source      k4 v1  x3 x0  k9 v7  x5     k9
    position     0  1   2  3   4  5   6      7
    target      k9 v7
    alignment   7-0 5-1     a key comes from the queries, a value from the pair of the key before it

The length of a source is that of the pairs, the queries and the noise between them, so a longer source has longer
distances and nothing more to remember. In :mod:`attnspan.data.corpora.synthetic.recall` it has more pairs.

In the paper the key is fed to the model and not scored. Here the decoder reads its own outputs, so it says the key
first, which it can copy from the source: half of the tokens are keys. Its next output needs one look-up.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from attnspan.data.alignment import to_pharaoh
from attnspan.data.corpora.base import GeneratedCorpus, check_choice
from attnspan.errors import SettingError, check_counts

SPREAD, BEFORE_QUERIES = "spread", "before_queries"
GAPS = (SPREAD, BEFORE_QUERIES)


@dataclass(frozen=True, kw_only=True)
class Mqar(GeneratedCorpus):
    """A source of S tokens has ``pairs`` pairs, ``queries`` keys at its end, and noise in all other places."""

    aligned: ClassVar[bool] = True

    symbols: int
    """Number of different keys, written k0, k1 and so on, of values, v0, v1 ..., and of noise, x0, x1 ..."""
    pairs: int
    """Number of pairs. Each key occurs in one pair; two keys may have the same value."""
    queries: int
    """Number of keys that are asked for, each once, in random order."""
    gaps: Annotated[str, f"one of {', '.join(GAPS)}"]
    """Where the noise is: ``spread`` over the places behind each pair, or all of it ``before_queries``."""

    @property
    def least_length(self) -> int:
        """Tokens of a source without noise."""
        return 2 * self.pairs + self.queries

    def examples(self, split: str, lengths: Iterator[int]) -> Iterator[dict[str, Any]]:
        """One example per length."""
        draw = random.Random(f"{self.data_seed} {split}")
        for length in lengths:
            keys = draw.sample(range(self.symbols), self.pairs)
            values = draw.choices(range(self.symbols), k=self.pairs)
            queried = draw.sample(range(self.pairs), self.queries)
            behind = self._noise(draw, length - self.least_length)
            source: list[str] = []
            value_at: list[int] = []
            for pair in range(self.pairs):
                value_at.append(len(source) + 1)
                source += [f"k{keys[pair]}", f"v{values[pair]}"]
                source += [f"x{draw.randrange(self.symbols)}" for _ in range(behind[pair])]
            yield self.ask(source, [(f"k{keys[pair]}", value_at[pair]) for pair in queried])

    def ask(self, source: list[str], queries: list[tuple[str, int]]) -> dict[str, Any]:
        """The example whose source begins with these pairs and their noise.

        A query is a key and the source position of its value.
        """
        keys, values = zip(*queries, strict=True)
        positions = [place for query in enumerate(values, start=len(source)) for place in query]
        source = [*source, *keys]
        return {
            "source": " ".join(source),
            "target": " ".join(source[position] for position in positions),
            "alignment": to_pharaoh(positions),
        }

    def _noise(self, draw: random.Random, tokens: int) -> list[int]:
        """How many tokens of noise stand behind each pair."""
        if self.gaps == BEFORE_QUERIES:
            return [0] * (self.pairs - 1) + [tokens]
        behind = [0] * self.pairs
        for pair in draw.choices(range(self.pairs), k=tokens):
            behind[pair] += 1
        return behind

    def _check(self) -> None:
        super()._check()
        check_counts(symbols=self.symbols, pairs=self.pairs, queries=self.queries)
        check_choice("gaps", "place of the noise", self.gaps, GAPS)
        if self.queries > self.pairs:
            raise SettingError("queries", f"must be at most data.pairs={self.pairs}, not {self.queries}")
        if self.pairs > self.symbols:
            raise SettingError("pairs", f"needs as many different keys, but data.symbols={self.symbols}")
        for key in ("train_lengths", "test_lengths"):
            if (shortest := getattr(self, key)[0]) < (least := self.least_length):
                raise SettingError(key, f"must be at least {least}, the tokens of pairs and queries, not {shortest}")
