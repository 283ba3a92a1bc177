"""A corpus: where the examples of the three splits come from, and how each side becomes tokens.

An example is a row of a Hugging Face dataset with the columns

==============  =========  ====================================================================================
``id``          str        stable name, ``test-00012``; ``test-00012-00014`` where rows 12 to 14 were joined
``source``      str        the text that goes in
``target``      str        the text that must come out
``alignment``   str        gold links in Pharaoh format (:mod:`attnspan.data.alignment`); in test, where they are known
==============  =========  ====================================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from attnspan.data.tokenizer import KINDS, SYMBOLS, Tokenizer
from attnspan.errors import BadRowError, InputError, nearest
from attnspan.runs.stable_name import stable_name

if TYPE_CHECKING:
    from datasets import Dataset

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
COLUMNS = ("id", "source", "target")
ALIGNMENT = "alignment"
LIMITED = {TRAIN: "train", VALIDATION: "evaluation", TEST: "evaluation"}
"""Which part of ``limits`` holds for a split."""


def option(default: Any) -> Any:
    """A field of a corpus that is no part of its identity while it has its default.

    So a corpus to which nobody applies it is called what it was called before the option was there.
    """
    return field(default=default, metadata={"option": True})


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Where a corpus is loaded, and what was found on the way."""

    work: Path
    """A directory that is there and empty, and goes when the corpus is tokenized."""
    kept: Path
    """A directory that may be made. It outlives a process that is killed or fails, and goes when the cache is whole."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Split to rows that were left out because they could not be used."""


@dataclass(frozen=True, kw_only=True)
class Corpus(ABC):
    """What every ``conf/data/*.yaml`` describes.

    Subclasses are keyword-only dataclasses whose fields are the yaml's keys.
    """

    source_tokens: str
    """``characters``, ``symbols`` (split at white space), ``words`` (and signs, cut apart) or ``bpe``."""
    target_tokens: str
    """As ``source_tokens``, for the other side."""
    vocabulary_size: int = 8000
    """Most entries that the vocabulary of a ``bpe`` or ``words`` side may have, the four special ones included."""
    limits: Mapping[str, Mapping[str, int | None]]
    """``{train: {source, target}, evaluation: {source, target}}``: the longest a side may be, in tokens; null for any.

    A longer pair is dropped from training and counted. In validation and test it is an error.
    """

    @abstractmethod
    def load(self, workshop: Workshop) -> dict[str, Dataset]:
        """The three splits, checked, in files in the ``workshop``.

        Raises:
            InputError: something that the user gave cannot be used.
        """

    def identity(self) -> dict[str, Any]:
        """All that determines the examples and their tokens, as JSON: two corpora with one identity share a cache."""
        return {"corpus": stable_name(f"{type(self).__module__}.{type(self).__qualname__}")} | {
            one.name: plain(value)
            for one in fields(self)
            if (value := getattr(self, one.name)) != one.default or not one.metadata.get("option")
        }

    def place(self, split: str) -> str:
        """Words for all of ``split``, by which its owner can find it."""
        return split

    def where(self, split: str, name: str) -> str:
        """Words for the row, or rows, of ``split`` that the example called ``name`` was made of."""
        return f"{self.place(split)} {row_words(name)}"

    def skip(self, split: str, workshop: Workshop, error: BadRowError) -> None:
        """Raise what is wrong with a row; a corpus may count it in the ``workshop`` instead, and go on without it."""
        raise error

    def kinds(self) -> dict[str, str]:
        """Side to its kind of tokens."""
        return {"source": self.source_tokens, "target": self.target_tokens}

    def train_tokenizers(self, train: Dataset) -> dict[str, Tokenizer]:
        """Side to its tokenizer, learned from the training split and nothing else."""
        from attnspan.data.arrow import read_rows

        return {
            side: Tokenizer.train(kind, (row[side] for row in read_rows(train)), self.vocabulary_size)
            for side, kind in self.kinds().items()
        }

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

    def load(self, workshop: Workshop) -> dict[str, Dataset]:
        """Draw the three splits."""
        from attnspan.data.arrow import write_dataset

        links = [ALIGNMENT] if self.aligned and self.source_tokens == self.target_tokens == SYMBOLS else []
        columns = {split: [*COLUMNS, *(links if split == TEST else [])] for split in SPLITS}
        return {split: write_dataset(workshop.work / split, columns[split], self._rows(split)) for split in SPLITS}

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


def example_id(split: str, row: int, last: int | None = None) -> str:
    """The stable name of row number ``row`` (from 0) of ``split``, or of rows ``row`` to ``last`` joined."""
    return f"{split}-{row:05d}" if last in (None, row) else f"{split}-{row:05d}-{last:05d}"


def rows_of(name: str) -> tuple[int, int]:
    """The numbers (from 0) of the first and the last row of the example that :func:`example_id` called ``name``."""
    first, *last = name.split("-")[1:]
    return int(first), int(last[0] if last else first)


def row_words(name: str) -> str:
    """The same in words, where rows count from 1: ``row 13``, ``rows 13 to 15``."""
    first, last = rows_of(name)
    return f"row {first + 1}" if first == last else f"rows {first + 1} to {last + 1}"


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
