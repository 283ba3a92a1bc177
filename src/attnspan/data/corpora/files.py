"""The user's own files: one csv, tsv, json lines or parquet file per split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnspan.checksums import sha256
from attnspan.data.alignment import GoldAlignment
from attnspan.data.corpora.base import ALIGNMENT, SIDES, SPLITS, TEST, TRAIN, BuildContext, option, without_splits
from attnspan.data.corpora.images import METADATA
from attnspan.data.corpora.kinds import ColumnName, ColumnNames, FilePath
from attnspan.data.corpora.text import TextCorpus
from attnspan.data.readers.columns import READ_IMAGES
from attnspan.data.readers.csv_table import CsvFormat
from attnspan.data.readers.row import Row
from attnspan.data.readers.table import read_table
from attnspan.data.readers.table_file import TableFile, check_file
from attnspan.data.tokenizer import SYMBOLS, count_symbols
from attnspan.errors import BadRowError, InputError, SettingError, check_switches


@dataclass(frozen=True, kw_only=True)
class Files(TextCorpus):
    """Pairs of texts from two columns of one file per split, in the format that the file ending says.

    A dot in the name of a column selects a nested column, as in ``translation.en``.
    """

    train: FilePath
    validation: FilePath
    test: FilePath
    """Paths."""
    columns: ColumnNames | None = None
    """Names of the columns of csv and tsv files without a header line."""
    quotes: bool = True
    """Whether cells of csv and tsv files may be enclosed in double quotes; false if quotes are ordinary characters."""
    alignment: ColumnName | None = None
    """Column of the test file with gold links in Pharaoh format (:mod:`attnspan.data.alignment`)."""
    training_alignment: bool = option(False)
    """Whether the training file has this column, too, for ``guidance=gold``."""

    def _check(self) -> None:
        super()._check()
        check_switches(training_alignment=self.training_alignment)
        if self.training_alignment and self.alignment is None:
            raise SettingError("training_alignment", "needs the column of the gold links: data.alignment")
        if self.alignment is None:
            return
        for side, tokenization in self.tokenizations().items():
            if tokenization != SYMBOLS:
                problem = "links count tokens between white space, so"
                raise SettingError(ALIGNMENT, f"{problem} data.{side}_tokens must be '{SYMBOLS}', not '{tokenization}'")
        if self.concat > 1:
            problem = "cannot be combined with data.alignment, whose links are per row"
            raise InputError(f"data.concat={self.concat}: {problem}")

    def _check_split(self, split: str) -> None:
        if not getattr(self, split):
            raise SettingError(split, "is empty; give the path of a file")
        if self.file(split).is_dir() and any((self.file(split) / name).is_file() for name in METADATA):
            raise SettingError(split, f"{self.file(split)}: is a folder of images; {READ_IMAGES}")
        check_file(TableFile.at(self.file(split)), f"data.{split}")

    def identity(self, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
        """The fields, with the hash of each file of ``splits`` in place of the paths."""
        files = {
            split: {"ending": TableFile.at(self.file(split)).ending, "sha256": sha256(self.file(split))}
            for split in splits
        }
        return without_splits(super().identity(splits)) | files

    def split_location(self, split: str) -> str:
        """The path of the file."""
        return f"{self.file(split)}"

    def file(self, split: str) -> Path:
        """The file of ``split``."""
        return Path(getattr(self, split))

    def raw_rows(self, split: str, context: BuildContext) -> Iterator[Row]:
        """The rows of the file."""
        return read_table(
            TableFile.at(self.file(split)),
            required=list(self.columns_of(split).values()),
            csv_format=CsvFormat(columns=self.columns, quotes=self.quotes),
            remark=lambda words: context.remarks.append(f"{split}: {words}"),
        )

    @property
    def header_remedy(self) -> str:
        """What to do about a header among the rows."""
        return super().header_remedy if self.columns is None else "remove the line, or leave out data.columns"

    def check_row(self, texts: dict[str, str], location: str) -> None:
        """Validate the gold links."""
        if ALIGNMENT not in texts:
            return
        lengths = {f"{side}_length": count_symbols(texts[side]) for side in SIDES}
        for side in SIDES:
            if count_symbols(self.normalizer(texts[side])) != lengths[f"{side}_length"]:
                problem = f"data.normalization={self.normalization} changes the number of symbols that links count"
                raise BadRowError(f"{location}: column '{getattr(self, side)}': {problem}")
        try:
            GoldAlignment.parse(texts[ALIGNMENT], location=f"{location}: column '{self.alignment}'", **lengths)
        except InputError as error:
            raise BadRowError(str(error)) from error

    def columns_of(self, split: str) -> dict[str, str]:
        """The columns of source and target, and that of the gold links if there is one."""
        wanted = split == TEST or (split == TRAIN and self.training_alignment)
        links = {ALIGNMENT: self.alignment} if wanted and self.alignment is not None else {}
        return super().columns_of(split) | links
