"""Pairs of texts that people wrote: checked row by row, made uniform, perhaps joined to longer ones."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from attnspan.data.corpora.base import SPLITS, Corpus, Workshop, check_count, example_id, option, rows_of
from attnspan.data.readers.cells import text_cell
from attnspan.data.tokenizer import NORMALIZATIONS, WORDS, Normalizer, Tokenizer
from attnspan.errors import BadRowError, InputError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

ERROR, SKIP = "error", "skip"
ON_BAD_ROW = (ERROR, SKIP)

RawRow = tuple[str, dict[str, Any]]
"""Where a row stands, in words, and its cells by column."""


@dataclass(frozen=True, kw_only=True)
class TextCorpus(Corpus):
    """Pairs from two columns of rows.

    What happens to a row, in this order: its cells are checked (``on_bad_row``), changed (``normalization``,
    ``lowercase``), joined with those of the next rows (``concat``), cut into tokens, and held against ``limits``.
    References are changed and joined as sources are, so scores are those of the changed texts.
    """

    source: str
    target: str
    """Columns."""
    lowercase: bool = option(False)
    """Both sides in lower case."""
    normalization: str | None = option(None)
    """Unicode's normal form of both sides: ``nfc``, ``nfkc``, or null to leave them as they are."""
    joint_vocabulary: bool = option(False)
    """One vocabulary for both sides, learned from the training texts of both."""
    minimum_count: int = option(1)
    """How often training must have a word for the vocabulary of a ``words`` side; rarer ones are ``<unk>``."""
    concat: int = option(1)
    """Each example is this many consecutive rows, joined by spaces; the last of a split may be fewer."""
    on_bad_row: str = option(ERROR)
    """What to do with a row that is no pair of texts, or too long for validation and test: ``error``, or ``skip``.

    Skipped rows are counted.
    """

    def check(self) -> None:
        """Refuse values of which no examples can be made.

        Raises:
            InputError: names the key.
        """
        super().check()
        for key in ("lowercase", "joint_vocabulary"):
            if not isinstance(getattr(self, key), bool):
                raise InputError(f"data.{key}: must be true or false, not {getattr(self, key)}")
        for key in ("minimum_count", "concat"):
            check_count(key, getattr(self, key))
        if self.normalization is not None and self.normalization not in NORMALIZATIONS:
            form = str(self.normalization)
            raise InputError(f"data.normalization: '{form}' is no normal form; {nearest(form, NORMALIZATIONS)}")
        if self.on_bad_row not in ON_BAD_ROW:
            choice = str(self.on_bad_row)
            raise InputError(f"data.on_bad_row: '{choice}' is not known; {nearest(choice, ON_BAD_ROW)}")
        kinds = (self.source_tokens, self.target_tokens)
        if self.joint_vocabulary and len(set(kinds)) > 1:
            raise InputError(f"data.joint_vocabulary: one vocabulary cannot be of {kinds[0]} and of {kinds[1]}")
        if self.minimum_count > 1 and WORDS not in kinds:
            raise InputError(f"data.minimum_count={self.minimum_count}: counts {WORDS}, and no side is made of them")

    @abstractmethod
    def raw_rows(self, split: str, workshop: Workshop) -> Iterator[RawRow]:
        """All rows of ``split`` in their order, unchecked.

        Raises:
            InputError: they cannot be read, or have no such columns.
        """

    def wanted(self, split: str) -> dict[str, str]:
        """What the examples of ``split`` have besides their id, and the columns that it comes from."""
        return {"source": self.source, "target": self.target}

    def refuse(self, split: str, cells: dict[str, str], where: str) -> None:
        """Look at the checked texts of one row; a corpus that knows more about them may object.

        Raises:
            BadRowError: names ``where``.
        """

    def load(self, workshop: Workshop) -> dict[str, Dataset]:
        """Read all rows, and make the examples of them."""
        from attnspan.data.arrow import write_dataset

        return {
            split: write_dataset(
                workshop.work / split, ["id", *self.wanted(split)], self._joined(split, self.rows(split, workshop))
            )
            for split in SPLITS
        }

    def rows(self, split: str, workshop: Workshop) -> Iterator[dict[str, Any]]:
        """The good rows of ``split``, each with the id that its number gives it; the others are counted."""
        return self.checked(split, self.raw_rows(split, workshop), workshop)

    def checked(
        self, split: str, rows: Iterable[RawRow], workshop: Workshop, *, first: int = 0
    ) -> Iterator[dict[str, Any]]:
        """Those of ``rows`` that are pairs of texts; ``first`` is the number of the first of them.

        Raises:
            InputError: one of them is bad, unless ``on_bad_row`` is ``skip``.
        """
        wanted = self.wanted(split)
        for number, (where, row) in enumerate(rows, start=first):
            try:
                cells = {name: text_cell(row, column, where) for name, column in wanted.items()}
                self.refuse(split, cells, where)
            except BadRowError as error:
                self.skip(split, workshop, error)
                continue
            yield {"id": example_id(split, number)} | cells

    def skip(self, split: str, workshop: Workshop, error: BadRowError) -> None:
        """Count a bad row, or raise what is wrong with it."""
        if self.on_bad_row == ERROR:
            super().skip(split, workshop, error)
        workshop.skipped[split] += 1

    def _joined(self, split: str, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Examples of ``concat`` rows each."""
        change = self._normalizer
        while some := list(islice(rows, self.concat)):
            first, last = rows_of(some[0]["id"])[0], rows_of(some[-1]["id"])[1]
            joined = {
                side: change(" ".join(row[side].strip() if self.concat > 1 else row[side] for row in some))
                for side in ("source", "target")
            }
            yield {**some[0], **joined, "id": example_id(split, first, last)}

    def train_tokenizers(self, train: Dataset) -> dict[str, Tokenizer]:
        """One for each side, or one for both."""
        if not self.joint_vocabulary:
            return {side: self._train(kind, train, side) for side, kind in self.kinds().items()}
        joint = self._train(self.source_tokens, train, "source", "target")
        return {"source": joint, "target": joint}

    def _train(self, kind: str, train: Dataset, *sides: str) -> Tokenizer:
        from attnspan.data.arrow import read_rows

        return Tokenizer.train(
            kind,
            (row[side] for row in read_rows(train) for side in sides),
            self.vocabulary_size,
            minimum_count=self.minimum_count,
            normalizer=self._normalizer,
        )

    @cached_property
    def _normalizer(self) -> Normalizer:
        return Normalizer(normalization=self.normalization, lowercase=self.lowercase)
