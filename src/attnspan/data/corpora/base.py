"""A corpus: where the examples of the three splits come from, and how each side becomes tokens.

An example is a row of a Hugging Face dataset with the columns

==============  =========  ====================================================================================
``id``          str        stable name, ``test-00012``; ``test-00012-00014`` where rows 12 to 14 were joined
``source``      str        the input text; of an image, words that describe it
``target``      str        the reference output
``alignment``   str        gold links in Pharaoh format (:mod:`attnspan.data.alignment`), or of an image its regions
                           (:mod:`attnspan.data.images.regions`); test only, where known
``given``       list[int]  positions of the target whose tokens are given to the decoder; all splits, or none
==============  =========  ====================================================================================
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from attnspan.data.alignment import to_pharaoh
from attnspan.data.corpora.kinds import Range, check_kinds, shown
from attnspan.data.given import GIVEN
from attnspan.data.tokenizer import SYMBOLS, TOKENIZATIONS, Tokenizer
from attnspan.errors import BadRowError, InputError, SettingError, check_counts, check_switches, nearest
from attnspan.runs.layout import OWN_CODE
from attnspan.runs.own_code import code_of
from attnspan.runs.stable_name import stable_name

if TYPE_CHECKING:
    from datasets import Dataset

    from attnspan.data.source_reader import SourceReader

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
SIDES = ("source", "target")
LENGTHS = (*SIDES, *(f"{side}-multiple" for side in SIDES))
"""The lengths by which results are given: tokens of a side, or multiples of the longest on that side in training."""
COLUMNS = ("id", *SIDES)
ALIGNMENT = "alignment"
LIMITS_KEY = {TRAIN: "train", VALIDATION: "evaluation", TEST: "evaluation"}
"""Split to the part of ``data.limits`` that applies to it."""


Tokenization = Annotated[str, f"one of {', '.join(TOKENIZATIONS)}"]


def option(default: Any) -> Any:
    """A field that is left out of the identity of a corpus while it has its default.

    So the identities of existing corpora stay the same when an option is added.
    """
    return field(default=default, metadata={"option": True})


@dataclass(frozen=True, kw_only=True)
class BuildContext:
    """The directories in which a corpus builds its splits, and the counts of rows that it left out, by split."""

    scratch: Path
    """An empty directory that is deleted when the corpus is tokenised."""
    downloads: Path
    """A directory that may be created. It survives a failed or killed build and goes when the cache is complete."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Unusable rows."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Pairs over the limits."""
    remarks: list[str] = field(default_factory=list)
    """What is legal and yet odd about the data, one line each."""
    files: dict[str, list[str]] = field(default_factory=dict)
    """Split to the names of its files, where the corpus itself finds them."""


@dataclass(frozen=True, kw_only=True)
class Corpus(ABC):
    """The base class of every ``_target_`` in ``conf/data/*.yaml``.

    Subclasses are keyword-only dataclasses whose fields are the keys of the yaml file.
    """

    has_images: ClassVar[bool] = False
    """Whether sources are images."""

    target_tokens: Tokenization
    """Tokenization of the target: ``characters``, ``symbols`` (split at white space), ``words`` (words and punctuation
    marks) or ``bpe``."""
    vocabulary_size: int = 8000
    """Maximum number of vocabulary entries of a ``bpe`` or ``words`` side, including the four special tokens."""
    limits: Annotated[Mapping[str, Mapping[str, int | None]], "a mapping, {train: {source, target}, evaluation: {...}}"]
    """``{train: {source, target}, evaluation: {source, target}}``: maximum tokens of a side; null for no limit.

    A longer pair is dropped from training and counted. In validation and test it is an error.
    """
    length: str | None = None
    """By which length results are given, one of ``LENGTHS``; null for the side on which the test goes beyond training.

    It changes no example, so it is not part of the identity.
    """

    @abstractmethod
    def load(self, context: BuildContext, splits: Sequence[str] = SPLITS) -> dict[str, Dataset]:
        """Build ``splits``, validated, as files in ``context.scratch``.

        Raises:
            InputError: the user's data or settings are unusable.
        """

    def identity(self, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
        """What determines the examples of ``splits`` and their tokens, as JSON.

        Corpora of equal identity share a cache.
        """
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        own = code_of([path])  # of a user's class: what it makes of the same settings may change
        return {"corpus": stable_name(path), **({OWN_CODE: own} if own else {})} | {
            one.name: value
            for one in fields(self)
            if one.name != "length"
            and ((value := getattr(self, one.name)) != one.default or not one.metadata.get("option"))
        }

    def split_location(self, split: str) -> str:
        """Where the user finds ``split``, for error messages."""
        return split

    def handle_bad_row(self, split: str, error: BadRowError, context: BuildContext) -> None:
        """Raise ``error``. A subclass may count the row in ``context.skipped`` instead."""
        raise error

    def tokenizations(self) -> dict[str, str]:
        """Side to its tokenization; images have none."""
        return {"target": self.target_tokens}

    def train_tokenizers(self, train: Dataset) -> Mapping[str, SourceReader]:
        """Side to its tokenizer, trained on the training split only; or to the reader of its images."""
        return {side: self.train_tokenizer(kind, train, side) for side, kind in self.tokenizations().items()}

    def train_tokenizer(self, tokenization: str, train: Dataset, *sides: str, **options: Any) -> Tokenizer:
        """The tokenizer of the texts of ``sides``; ``options`` are those of :meth:`Tokenizer.train`."""
        from attnspan.data.arrow import read_rows

        texts = (row[side] for row in read_rows(train) for side in sides)
        return Tokenizer.train(tokenization, texts, self.vocabulary_size, **options)

    def check(self, splits: Sequence[str] = SPLITS) -> None:
        """Validate the fields, those about a split only for ``splits``.

        Raises:
            InputError: names the key.
        """
        try:
            check_kinds(self, left_out=[split for split in SPLITS if split not in splits])
            self._check()
            for split in splits:
                self._check_split(split)
        except SettingError as error:
            raise InputError(f"data.{error}") from None

    def _check(self) -> None:
        for side, tokenization in self.tokenizations().items():
            check_choice(f"{side}_tokens", "tokenization", tokenization, TOKENIZATIONS)
        check_counts(vocabulary_size=self.vocabulary_size)
        if self.length is not None:
            check_choice("length", "length", self.length, LENGTHS)
        for part, side in product(dict.fromkeys(LIMITS_KEY.values()), SIDES):
            key, limits = f"limits.{part}.{side}", self.limits.get(part, {})
            if not isinstance(limits, Mapping):
                raise SettingError(f"limits.{part}", f"must be a mapping, {{source, target}}, not {shown(limits)}")
            if side not in limits:
                raise SettingError(key, "is missing (a number of tokens, or null for no limit)")
            if limits[side] is not None:
                check_counts(**{key: limits[side]})

    def _check_split(self, split: str) -> None:  # noqa: B027 - a hook for subclasses
        """Validate what the fields say about ``split``."""


def check_choice(key: str, kind: str, value: object, known: Collection[str]) -> None:
    """Raise :class:`SettingError` for a ``value`` of ``key`` that is not one of ``known``."""
    if value not in known:
        raise SettingError(key, f"unknown {kind} '{value}'; {nearest(str(value), known)}")


@dataclass(frozen=True, kw_only=True)
class TokenCorpus(Corpus):
    """A corpus whose sources are texts."""

    source_tokens: Tokenization
    """Tokenization of the source."""

    def tokenizations(self) -> dict[str, str]:
        """Both sides."""
        return {"source": self.source_tokens, **super().tokenizations()}


@dataclass(frozen=True, kw_only=True)
class GeneratedExamples(Corpus):
    """Examples that are made: lengths are spread evenly, and all depends on ``data_seed`` only."""

    aligned: ClassVar[bool] = False
    """Whether the examples have a gold ``alignment``."""
    gives_tokens: ClassVar[bool] = False
    """Whether some target tokens are ``given``: the decoder reads them, and they are in no loss and no measure."""
    minimum_length: ClassVar[tuple[int, str]] = (1, "tokens")
    """Shortest possible source, and the unit for error messages."""

    train_lengths: Range
    """Shortest and longest source in training and validation, in source tokens, or what a corpus of images counts."""
    test_lengths: Range
    """Shortest and longest source in the test split."""
    train_size: int
    validation_size: int
    test_size: int
    """Examples in the split. Counts per length differ by at most one."""
    data_seed: int
    """Seed of the examples. It is independent of the run's seed: all seeds train on the same data."""

    @abstractmethod
    def examples(self, split: str, lengths: Iterator[int]) -> Iterator[dict[str, Any]]:
        """Generate one example (``source``, ``target``, optionally ``alignment``) per source length, in tokens."""

    def columns(self, split: str) -> list[str]:
        """The columns of ``split``."""
        aligned = self.aligned and split == TEST
        return [*COLUMNS, *([ALIGNMENT] if aligned else []), *([GIVEN] if self.gives_tokens else [])]

    def load(self, context: BuildContext, splits: Sequence[str] = SPLITS) -> dict[str, Dataset]:
        """Generate ``splits``."""
        from attnspan.data.arrow import write_dataset

        return {
            split: write_dataset(context.scratch / split, self.columns(split), self.rows(split)) for split in splits
        }

    def rows(self, split: str) -> Iterator[dict[str, Any]]:
        """The examples of ``split`` with their ids."""
        shortest, longest = self.test_lengths if split == TEST else self.train_lengths
        # Cycling through the lengths spreads them evenly for any size.
        lengths = (shortest + row % (longest - shortest + 1) for row in range(getattr(self, f"{split}_size")))
        for row, example in enumerate(self.examples(split, lengths)):
            yield {"id": make_example_id(split, row)} | example

    def _check(self) -> None:
        super()._check()
        check_counts(train_size=self.train_size, validation_size=self.validation_size, test_size=self.test_size)
        for key in ("train_lengths", "test_lengths"):
            value = getattr(self, key)
            if len(value) != 2:
                raise SettingError(key, f"must be [shortest, longest], not {value}")
            for length in value:
                check_counts(**{key: length})
            if value[0] > value[1]:
                raise SettingError(key, f"the shortest length, {value[0]}, exceeds the longest, {value[1]}")
            least, unit = self.minimum_length
            if value[0] < least:
                raise SettingError(key, f"must be at least {least} {unit}, not {value[0]}")
        if isinstance(self.data_seed, bool) or not isinstance(self.data_seed, int):
            raise SettingError("data_seed", f"must be a whole number, not {self.data_seed!r}")


@dataclass(frozen=True, kw_only=True)
class GeneratedCorpus(GeneratedExamples, TokenCorpus):
    """A synthetic task on texts."""

    training_alignment: bool = option(False)
    """Whether training has the gold links as well as test, for ``guidance=gold``."""

    def columns(self, split: str) -> list[str]:
        """The columns of ``split``; alignments are between symbols."""
        columns = super().columns(TEST if split == TRAIN and self.training_alignment else split)
        are_symbols = self.source_tokens == self.target_tokens == SYMBOLS
        return columns if are_symbols else [column for column in columns if column != ALIGNMENT]

    def _check(self) -> None:
        super()._check()
        check_switches(training_alignment=self.training_alignment)
        if self.gives_tokens and self.target_tokens != SYMBOLS:
            raise SettingError("target_tokens", f"must be {SYMBOLS}, of which this data gives some to the decoder")
        if self.training_alignment and ALIGNMENT not in self.columns(TRAIN):
            raise SettingError("training_alignment", "this data has no gold links between the tokens of both sides")


@dataclass(frozen=True, kw_only=True)
class RandomSequences(GeneratedCorpus):
    """Sequences of uniformly drawn symbols; each output is the symbol at one source position."""

    aligned: ClassVar[bool] = True

    symbols: int
    """Number of different symbols, written 0, 1, 2 and so on."""

    @abstractmethod
    def source_positions(self, sequence: Sequence[int]) -> Sequence[int]:
        """The source position of each output, for a source of these symbols."""

    def known_symbols(self, length: int) -> int:
        """Number of the symbols from which a source of ``length`` tokens is drawn: the first ones."""
        return self.symbols

    def examples(self, split: str, lengths: Iterator[int]) -> Iterator[dict[str, Any]]:
        """One sequence per length."""
        draw = random.Random(f"{self.data_seed} {split}")
        for length in lengths:
            sequence = draw.choices(range(self.known_symbols(length)), k=length)
            positions = self.source_positions(sequence)
            target = " ".join(str(sequence[position]) for position in positions)
            yield {"source": " ".join(map(str, sequence)), "target": target, "alignment": to_pharaoh(positions)}

    def _check(self) -> None:
        super()._check()
        check_counts(symbols=self.symbols)


def without_splits(identity: dict[str, Any]) -> dict[str, Any]:
    """The identity without the fields that say where each split is."""
    return {key: value for key, value in identity.items() if key not in SPLITS}


def make_example_id(split: str, row: int, last: int | None = None) -> str:
    """The id of row ``row`` (from 0) of ``split``, or of rows ``row`` to ``last`` joined."""
    return f"{split}-{row:05d}" if last in (None, row) else f"{split}-{row:05d}-{last:05d}"


def describe_rows(example_id: str) -> str:
    """The rows of an example for messages, counted from 1: ``row 13``, ``rows 13 to 15``."""
    first, *last = (int(row) + 1 for row in example_id.split("-")[1:])
    return f"rows {first} to {last[0]}" if last else f"row {first}"
