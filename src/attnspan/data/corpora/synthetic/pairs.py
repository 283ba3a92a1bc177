"""Sources of key-value pairs, followed by queried keys: what the recall tasks share."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from attnspan.data.alignment import to_pharaoh
from attnspan.data.corpora.base import GeneratedCorpus
from attnspan.errors import SettingError, check_counts


@dataclass(frozen=True, kw_only=True)
class KeyValuePairs(GeneratedCorpus):
    """A source of S tokens has ceil(S / 3) pairs; queried keys in random order fill the rest.

    Each key occurs in one pair and is queried at most once. Two keys may have the same value.
    """

    aligned: ClassVar[bool] = True
    minimum_length: ClassVar[tuple[int, str]] = (5, "tokens")
    """Two pairs and one key. Four tokens leave no room for a key, and three leave no choice."""

    symbols: int
    """Number of different keys, written k0, k1 and so on, and of values, written v0, v1 and so on."""

    @abstractmethod
    def outputs(self, queries: Sequence[int], pairs: int) -> list[int]:
        """The source position of each target token; ``queries`` are the numbers of the queried pairs, from 0."""

    def examples(self, split: str, lengths: Iterator[int]) -> Iterator[dict[str, Any]]:
        """One example per length."""
        draw = random.Random(f"{self.data_seed} {split}")
        for length in lengths:
            pairs = pairs_in(length)
            keys = draw.sample(range(self.symbols), pairs)
            values = draw.choices(range(self.symbols), k=pairs)
            queries = draw.sample(range(pairs), length - 2 * pairs)
            listed = [token for key, value in zip(keys, values, strict=True) for token in (f"k{key}", f"v{value}")]
            source = [*listed, *(f"k{keys[pair]}" for pair in queries)]
            positions = self.outputs(queries, pairs)
            yield {
                "source": " ".join(source),
                "target": " ".join(source[position] for position in positions),
                "alignment": to_pharaoh(positions),
            }

    def _check(self) -> None:
        super()._check()
        check_counts(symbols=self.symbols)
        for key in ("train_lengths", "test_lengths"):
            longest = getattr(self, key)[1]
            needed = f"a source of {longest} tokens needs {pairs_in(longest)} different keys"
            if pairs_in(longest) > self.symbols:
                raise SettingError(key, f"{needed}, but data.symbols={self.symbols}")


def pairs_in(length: int) -> int:
    """Number of key-value pairs in a source of ``length`` tokens."""
    return -(-length // 3)
