"""A user's own files: csv, tsv, json lines or parquet, one a split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnspan.alignment import Gold
from attnspan.data.cells import text_cell
from attnspan.data.corpus import ALIGNMENT, SPLITS, TEST, Corpus, example_id, plain
from attnspan.data.tables import check_file, read_table
from attnspan.data.tokenization import SYMBOLS, count_symbols
from attnspan.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class Files(Corpus):
    """Pairs of texts from two columns of a file for each split. What decides the format is the file's ending."""

    train: str
    validation: str
    test: str
    """Paths."""
    source: str
    target: str
    """Columns; a dot leads into nested ones, as in ``translation.en``."""
    columns: Sequence[str] | None = None
    """Names of the columns of csv and tsv files that have no header line."""
    quotes: bool = True
    """Cells of csv and tsv files may stand in double quotes; false where quotes are text like any other."""
    alignment: str | None = None
    """Column of the test file with gold links in Pharaoh format, see :mod:`attnspan.alignment`."""

    def check(self) -> None:
        """Refuse files that cannot be opened or are no tables, and links between what are no symbols.

        Raises:
            InputError: names the key and the file.
        """
        super().check()
        for split in SPLITS:
            if not getattr(self, split):
                raise InputError(f"data.{split}: names no file")
            check_file(self.file(split), f"data.{split}")
        for side in ("source", "target"):
            kind = getattr(self, f"{side}_tokens")
            if self.alignment is not None and kind != SYMBOLS:
                raise InputError(
                    f"data.alignment: links count tokens between white space, so data.{side}_tokens must be "
                    f"'{SYMBOLS}', not '{kind}'"
                )

    def identity(self) -> dict[str, Any]:
        """The fields, with the content of each file in place of its path."""
        files = {split: {"ending": self.file(split).suffix, "sha256": sha256(self.file(split))} for split in SPLITS}
        return super().identity() | files

    def where(self, split: str, row: int | None = None) -> str:
        """The file, and its row as :mod:`attnspan.data.tables` counts."""
        return f"{self.file(split)}" if row is None else f"{self.file(split)} row {row + 1}"

    def load(self, work: Path) -> dict[str, Dataset]:
        """Read and check all rows."""
        from attnspan.data.arrow import write_dataset

        return {split: write_dataset(work / split, ["id", *self._wanted(split)], self._rows(split)) for split in SPLITS}

    def file(self, split: str) -> Path:
        """The file of ``split``."""
        return Path(getattr(self, split))

    def _rows(self, split: str) -> Iterator[dict[str, Any]]:
        wanted = self._wanted(split)
        rows = read_table(self.file(split), wanted=list(wanted.values()), names=plain(self.columns), quotes=self.quotes)
        for number, (where, row) in enumerate(rows):
            cells = {name: text_cell(row, column, where) for name, column in wanted.items()}
            if ALIGNMENT in cells:
                Gold.read(
                    cells[ALIGNMENT],
                    where=f"{where}: column '{self.alignment}'",
                    source_length=count_symbols(cells["source"]),
                    target_length=count_symbols(cells["target"]),
                )
            yield {"id": example_id(split, number)} | cells

    def _wanted(self, split: str) -> dict[str, str]:
        """What to read, and from which column."""
        wanted = {"source": self.source, "target": self.target}
        if split == TEST and self.alignment is not None:
            wanted[ALIGNMENT] = self.alignment
        return wanted


def sha256(path: Path) -> str:
    """The sha256 of a file's content.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
