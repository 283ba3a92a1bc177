"""A user's own files: csv, tsv, json lines or parquet, one a split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnspan.data.alignment import Gold
from attnspan.data.corpora.base import ALIGNMENT, SPLITS, TEST, Workshop, plain
from attnspan.data.corpora.text import RawRow, TextCorpus
from attnspan.data.readers.tables import check_file, read_table
from attnspan.data.tokenizer import SYMBOLS, count_symbols
from attnspan.errors import BadRowError, InputError


@dataclass(frozen=True, kw_only=True)
class Files(TextCorpus):
    """Pairs of texts from two columns of a file for each split. What decides the format is the file's ending.

    A dot in the name of a column leads into nested ones, as in ``translation.en``.
    """

    train: str
    validation: str
    test: str
    """Paths."""
    columns: Sequence[str] | None = None
    """Names of the columns of csv and tsv files that have no header line."""
    quotes: bool = True
    """Cells of csv and tsv files may stand in double quotes; false where quotes are text like any other."""
    alignment: str | None = None
    """Column of the test file with gold links in Pharaoh format, see :mod:`attnspan.analysis.alignment`."""

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
        if self.alignment is not None and self.concat > 1:
            raise InputError(f"data.concat={self.concat}: the links of data.alignment are of pairs that are not joined")

    def identity(self) -> dict[str, Any]:
        """The fields, with the content of each file in place of its path."""
        files = {split: {"ending": self.file(split).suffix, "sha256": sha256(self.file(split))} for split in SPLITS}
        return super().identity() | files

    def place(self, split: str) -> str:
        """The file, whose rows are counted as :mod:`attnspan.data.readers.tables` counts."""
        return f"{self.file(split)}"

    def file(self, split: str) -> Path:
        """The file of ``split``."""
        return Path(getattr(self, split))

    def raw_rows(self, split: str, workshop: Workshop) -> Iterator[RawRow]:
        """The rows of the file."""
        wanted = list(self.wanted(split).values())
        return read_table(self.file(split), wanted=wanted, names=plain(self.columns), quotes=self.quotes)

    def refuse(self, split: str, cells: dict[str, str], where: str) -> None:
        """Refuse links that lead nowhere."""
        if ALIGNMENT not in cells:
            return
        lengths = {f"{side}_length": count_symbols(cells[side]) for side in ("source", "target")}
        try:
            Gold.read(cells[ALIGNMENT], where=f"{where}: column '{self.alignment}'", **lengths)
        except InputError as error:
            raise BadRowError(str(error)) from error

    def wanted(self, split: str) -> dict[str, str]:
        """Source and target, and the links of the test split where they are given."""
        links = {ALIGNMENT: self.alignment} if split == TEST and self.alignment is not None else {}
        return super().wanted(split) | links


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
