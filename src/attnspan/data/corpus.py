"""A corpus: where the examples of the three splits come from, and how each side becomes tokens.

An example is a row of a Hugging Face dataset with the columns

==============  =========  ====================================================================================
``id``          str        stable name, ``test-00012``
``source``      str        the text that goes in
``target``      str        the text that must come out
``alignment``   str        gold links in Pharaoh format, see :mod:`attnspan.alignment`; in test, where they are known
==============  =========  ====================================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from attnspan.data.tokenization import KINDS, SYMBOLS
from attnspan.errors import InputError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
COLUMNS = ("id", "source", "target")
ALIGNMENT = "alignment"
LIMITED = {TRAIN: "train", VALIDATION: "evaluation", TEST: "evaluation"}
"""Which part of ``limits`` holds for a split."""


@dataclass(frozen=True, kw_only=True)
class Corpus(ABC):
    """What every ``conf/data/*.yaml`` describes.

    Subclasses are keyword-only dataclasses whose fields are the yaml's keys.
    """

    source_tokens: str
    """``characters``, ``symbols`` (split at white space) or ``bpe``."""
    target_tokens: str
    """As ``source_tokens``, for the other side."""
    vocabulary_size: int = 8000
    """Most entries that the vocabulary of a ``bpe`` side may have, the four special ones included."""
    limits: Mapping[str, Mapping[str, int | None]]
    """``{train: {source, target}, evaluation: {source, target}}``: the longest a side may be, in tokens; null for any.

    A longer pair is dropped from training and counted. In validation and test it is an error.
    """

    @abstractmethod
    def load(self, work: Path) -> dict[str, Dataset]:
        """The three splits, checked; ``work`` is an empty directory for their files, there until they are tokenized.

        Raises:
            InputError: something that the user gave cannot be used.
        """

    def identity(self) -> dict[str, Any]:
        """All that determines the examples and their tokens, as JSON: two corpora with one identity share a cache."""
        return {"corpus": f"{type(self).__module__}.{type(self).__qualname__}"} | {
            field.name: plain(getattr(self, field.name)) for field in fields(self)
        }

    def where(self, split: str, row: int | None = None) -> str:
        """Words for row number ``row`` (from 0) of ``split``, or for all of it, by which its owner can find it."""
        return split if row is None else f"{split} row {row + 1}"

    def limit(self, split: str, side: str) -> int | None:
        """The longest ``side`` that ``split`` may hold, in tokens."""
        return self.limits[LIMITED[split]][side]

    def check(self) -> None:
        """Refuse values that no corpus can use.

        Raises:
            InputError: names the key.
        """
        for key in ("source_tokens", "target_tokens"):
            kind = getattr(self, key)
            if kind not in KINDS:
                raise InputError(f"data.{key}: '{kind}' is no kind of tokens; {nearest(str(kind), KINDS)}")
        check_count("vocabulary_size", self.vocabulary_size)
        for part in ("train", "evaluation"):
            for side in ("source", "target"):
                limits = self.limits.get(part)
                if not isinstance(limits, Mapping) or side not in limits:
                    raise InputError(f"data.limits.{part}.{side}: is missing (a number of tokens, or null for any)")
                if limits[side] is not None:
                    check_count(f"limits.{part}.{side}", limits[side])


@dataclass(frozen=True, kw_only=True)
class GeneratedCorpus(Corpus):
    """A corpus made by a rule: lengths are spread evenly, and every example is a function of ``data_seed`` alone."""

    train_lengths: Sequence[int]
    """Shortest and longest source in training and validation, in source tokens."""
    test_lengths: Sequence[int]
    """Shortest and longest source in the test split, in source tokens."""
    train_size: int
    validation_size: int
    test_size: int
    """Examples in the split; every length gets the same number of them, up to one."""
    data_seed: int
    """Draws the examples. It is no part of a run's seed: all seeds train on the same data."""

    @abstractmethod
    def examples(self, split: str, lengths: Iterator[int]) -> Iterator[dict[str, Any]]:
        """One example (``source``, ``target``, perhaps ``alignment``) for each of ``lengths``, in source tokens."""

    aligned: ClassVar[bool] = False
    """Whether the examples come with their gold ``alignment``, between symbols."""

    def load(self, work: Path) -> dict[str, Dataset]:
        """Draw the three splits."""
        from attnspan.data.arrow import write_dataset

        links = [ALIGNMENT] if self.aligned and self.source_tokens == self.target_tokens == SYMBOLS else []
        columns = {split: [*COLUMNS, *(links if split == TEST else [])] for split in SPLITS}
        return {split: write_dataset(work / split, columns[split], self._rows(split)) for split in SPLITS}

    def size(self, split: str) -> int:
        """Number of examples in ``split``."""
        return int(getattr(self, f"{split}_size"))

    def lengths(self, split: str) -> tuple[int, int]:
        """Shortest and longest source of ``split``, in source tokens."""
        shortest, longest = self.test_lengths if split == TEST else self.train_lengths
        return shortest, longest

    def check(self) -> None:
        """Refuse sizes and lengths that cannot be drawn.

        Raises:
            InputError: names the key.
        """
        super().check()
        for split in SPLITS:
            check_count(f"{split}_size", self.size(split))
        for key in ("train_lengths", "test_lengths"):
            value = getattr(self, key)
            if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
                raise InputError(f"data.{key}: must be [shortest, longest], not {plain(value)}")
            for length in value:
                check_count(key, length)
            if value[0] > value[1]:
                raise InputError(f"data.{key}: the shortest, {value[0]}, is longer than the longest, {value[1]}")
        if isinstance(self.data_seed, bool) or not isinstance(self.data_seed, int):
            raise InputError(f"data.data_seed: must be a whole number, not {self.data_seed}")

    def _rows(self, split: str) -> Iterator[dict[str, Any]]:
        shortest, longest = self.lengths(split)
        # Cycling through the lengths spreads them evenly for any size.
        lengths = (shortest + row % (longest - shortest + 1) for row in range(self.size(split)))
        for row, example in enumerate(self.examples(split, lengths)):
            yield {"id": example_id(split, row)} | example


def example_id(split: str, row: int) -> str:
    """The stable name of row number ``row`` (from 0) of ``split``."""
    return f"{split}-{row:05d}"


def check_count(key: str, value: object) -> None:
    """Refuse what is not a positive whole number.

    Raises:
        InputError: names ``data.<key>``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"data.{key}: must be a whole number above 0, not {value}")


def plain(value: Any) -> Any:
    """``value`` with every mapping as a dict and every sequence as a list, so that it can be written as JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value
