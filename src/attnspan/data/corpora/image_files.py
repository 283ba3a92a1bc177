"""Images that the user supplies, each with a text: a table for each split, and a column with file names or bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnspan.checksums import sha256
from attnspan.data.corpora.base import SPLITS, BuildContext, without_splits
from attnspan.data.corpora.images import METADATA, ImageRow, ImageTable, file_name
from attnspan.data.corpora.kinds import FilePath
from attnspan.data.readers.columns import check_columns
from attnspan.data.readers.row import Row
from attnspan.data.readers.table import CsvFormat, read_table
from attnspan.data.readers.table_file import TableFile, check_file
from attnspan.errors import InputError, SettingError


@dataclass(frozen=True, kw_only=True)
class ImageFiles(ImageTable):
    """One table per split; a folder stands for its ``metadata.csv``, ``.jsonl`` or ``.parquet``.

    The name of a file is relative to the table.
    """

    train: FilePath
    validation: FilePath
    test: FilePath
    """Paths of tables or folders."""

    def table(self, split: str) -> Path:
        """The table of ``split``."""
        path = Path(getattr(self, split))
        found = [path / name for name in METADATA if (path / name).is_file()]
        return found[0] if path.is_dir() and found else path

    def split_location(self, split: str) -> str:
        """The path of the table."""
        return f"{self.table(split)}"

    def identity(self, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
        """The fields, with the hashes of tables and images of ``splits`` in place of the paths."""
        return without_splits(super().identity(splits)) | {split: self._hashes(split) for split in splits}

    def _hashes(self, split: str) -> dict[str, Any]:
        table = self.table(split)
        images = {}
        for _, row in self._rows(split, None):
            name = file_name(row[self.image])
            if name is not None and name not in images:
                path = table.parent / name
                images[name] = sha256(path) if path.is_file() else None
        return {"ending": TableFile.at(table).ending, "sha256": sha256(table), "images": sorted(images.items())}

    def image_rows(self, split: str, context: BuildContext) -> Iterator[ImageRow]:
        """The rows of the table."""
        folder = self.table(split).parent
        for location, row in self._rows(split, context):
            yield ImageRow(location=location, cells=row, image=row[self.image], folder=lambda: folder)

    def _rows(self, split: str, context: BuildContext | None) -> Iterator[Row]:
        def remark(words: str) -> None:
            if context is not None:
                context.remarks.append(f"{split}: {words}")

        file, required = TableFile.at(self.table(split)), [self.image, self.target]
        for location, row in read_table(
            file, required=required, csv_format=CsvFormat(columns=None, quotes=True), remark=remark
        ):
            check_columns(row, [self.image], location)
            yield location, row

    def _check_split(self, split: str) -> None:
        given = getattr(self, split)
        if not given:
            raise SettingError(split, "is empty; give the path of a table, or of a folder with metadata.csv")
        if Path(given).is_dir() and self.table(split) == Path(given):
            raise InputError(f"data.{split}: {given}: the folder has none of {', '.join(METADATA)}")
        check_file(TableFile.at(self.table(split)), f"data.{split}")
