"""Text pairs that the user supplies: validated row by row, normalised, optionally joined to longer examples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from attnspan.data.corpora.base import SIDES, SPLITS, BuildContext, TokenCorpus, check_choice, make_example_id, option
from attnspan.data.corpora.kinds import ColumnName
from attnspan.data.readers.columns import READ_IMAGES, text_cell
from attnspan.data.readers.row import Row
from attnspan.data.tokenizer import NORMALIZATIONS, WORDS, Normalizer, Tokenizer
from attnspan.data.white_space import strip
from attnspan.errors import BadRowError, InputError, SettingError, check_counts

if TYPE_CHECKING:
    from datasets import Dataset

    from attnspan.data.source_reader import SourceReader

ERROR, SKIP = "error", "skip"

_OF_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")

READING = 2
"""Raise it when the same files would be read differently. What was prepared from them before is then ignored."""


@dataclass(frozen=True, kw_only=True)
class TextCorpus(TokenCorpus):
    """Pairs of texts from two columns.

    The processing order of a row is: validate its cells (``on_bad_row``), normalise them (``normalization``,
    ``lowercase``), join them with the next rows (``concat``), tokenise, apply ``limits``. References are processed like
    sources, so scores are computed on the processed text.
    """

    source: ColumnName
    target: ColumnName
    """Columns."""
    lowercase: bool = option(False)
    """Convert both sides to lower case."""
    normalization: Annotated[str | None, "nfc, nfkc or null"] = option(None)
    """Unicode normal form of both sides: ``nfc``, ``nfkc``, or null for none."""
    joint_vocabulary: bool = option(False)
    """One vocabulary for both sides, trained on the training texts of both."""
    minimum_count: int = option(1)
    """Minimum count of a word in training to enter the vocabulary of a ``words`` side; rarer words become ``<unk>``."""
    concat: int = option(1)
    """Number of consecutive rows that are joined by spaces to one example; the last of a split may have fewer."""
    on_bad_row: Annotated[str, f"{ERROR} or {SKIP}"] = option(ERROR)
    """What to do with a row that is no pair of texts, or is too long for validation and test: ``error`` or ``skip``.

    Skipped rows are counted.
    """

    def identity(self, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
        """The fields, and the version of the readers."""
        return super().identity(splits) | {"reading": READING}

    def _check(self) -> None:
        super()._check()
        check_counts(minimum_count=self.minimum_count, concat=self.concat)
        if self.normalization is not None:
            check_choice("normalization", "normal form", self.normalization, NORMALIZATIONS)
        check_choice("on_bad_row", "value", self.on_bad_row, (ERROR, SKIP))
        source, target = self.source_tokens, self.target_tokens
        if self.joint_vocabulary and source != target:
            problem = f"both sides need the same tokenization, not {source} and {target}"
            raise SettingError("joint_vocabulary", problem)
        if self.minimum_count > 1 and WORDS not in (source, target):
            raise InputError(f"data.minimum_count={self.minimum_count}: needs a side whose tokenization is {WORDS}")

    @property
    def header_remedy(self) -> str:
        """What to do about a header among the rows."""
        return "remove the line"

    @abstractmethod
    def raw_rows(self, split: str, context: BuildContext) -> Iterator[Row]:
        """All rows of ``split`` in order, not validated.

        Raises:
            InputError: they cannot be read, or lack a column.
        """

    def columns_of(self, split: str) -> dict[str, str]:
        """Field of an example (``source``, ``target``, perhaps ``alignment``) to the column that holds it."""
        return {"source": self.source, "target": self.target}

    def check_row(self, texts: dict[str, str], location: str) -> None:
        """Validate the texts of one row further and raise :class:`BadRowError`; a hook for subclasses."""

    def load(self, context: BuildContext, splits: Sequence[str] = SPLITS) -> dict[str, Dataset]:
        """Read all rows and build the examples."""
        from attnspan.data.arrow import write_dataset

        columns = {split: ["id", *self.columns_of(split)] for split in splits}
        rows = {split: self._examples(split, context) for split in splits}
        return {split: write_dataset(context.scratch / split, columns[split], rows[split]) for split in splits}

    def handle_bad_row(self, split: str, error: BadRowError, context: BuildContext) -> None:
        """Count the row if ``on_bad_row`` is ``skip``; otherwise raise ``error``."""
        if self.on_bad_row == ERROR:
            raise error
        context.skipped[split] += 1

    def train_tokenizers(self, train: Dataset) -> Mapping[str, SourceReader]:
        """One tokenizer per side, or the same one for both."""
        if not self.joint_vocabulary:
            return super().train_tokenizers(train)
        return dict.fromkeys(SIDES, self.train_tokenizer(self.source_tokens, train, *SIDES))

    def train_tokenizer(self, tokenization: str, train: Dataset, *sides: str, **options: Any) -> Tokenizer:
        """The tokenizer of the normalised texts of ``sides``."""
        options |= {"minimum_count": self.minimum_count, "normalizer": self.normalizer}
        return super().train_tokenizer(tokenization, train, *sides, **options)

    def _examples(self, split: str, context: BuildContext) -> Iterator[dict[str, str]]:
        """Examples of ``concat`` valid rows each."""
        rows = self._valid_rows(split, context)
        while group := list(islice(rows, self.concat)):
            texts = [row for _, row in group]
            joined = {
                side: self.normalizer(" ".join(strip(row[side]) if self.concat > 1 else row[side] for row in texts))
                for side in SIDES
            }
            yield {**texts[0], **joined, "id": make_example_id(split, group[0][0], group[-1][0])}

    def _valid_rows(self, split: str, context: BuildContext) -> Iterator[tuple[int, dict[str, str]]]:
        """(number from 0, texts by field) of each valid row; the others are counted."""
        columns, only_names = self.columns_of(split), None
        for number, (location, row) in enumerate(self.raw_rows(split, context)):
            try:
                texts = {field: text_cell(row, column, location) for field, column in columns.items()}
                self._refuse_header(texts, location)
                self.check_row(texts, location)
            except BadRowError as error:
                self.handle_bad_row(split, error, context)
                continue
            only_names = only_names is not False and texts["source"].lower().endswith(_OF_IMAGES)
            yield number, texts
        if only_names:
            where = f"{self.split_location(split)}: column '{self.source}'"
            raise InputError(f"{where} holds nothing but names of image files; {READ_IMAGES}")

    def _refuse_header(self, texts: dict[str, str], location: str) -> None:
        """Refuse a row that spells the names of its columns, as where files were joined with their headers."""
        if _spells(texts["source"], self.source) and _spells(texts["target"], self.target):
            names = f"'{texts['source']}' and '{texts['target']}'"
            raise BadRowError(f"{location}: {names} are the names of the columns: a header; {self.header_remedy}")

    @cached_property
    def normalizer(self) -> Normalizer:
        """Applied to both sides of every row."""
        return Normalizer(normalization=self.normalization, lowercase=self.lowercase)


def _spells(text: str, name: str) -> bool:
    """Whether ``text`` is the name of a column, or of the last part of a nested one."""
    cell = strip(text.removeprefix("\ufeff")).casefold()
    return cell in (name.casefold(), name.rpartition(".")[2].casefold())
