"""Images that the user supplies, each with a text: a table for each split, and a column with file names or bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from attnspan.checksums import sha256
from attnspan.data.corpora.base import COLUMNS, SPLITS, BuildContext, check_choice, make_example_id, without_splits
from attnspan.data.corpora.images import ImageCorpus
from attnspan.data.corpora.kinds import ColumnName, FilePath
from attnspan.data.corpora.text import ERROR, SKIP
from attnspan.data.readers.columns import check_columns, text_cell
from attnspan.data.readers.row import Row
from attnspan.data.readers.table import CsvFormat, read_table
from attnspan.data.readers.table_file import TableFile, check_file
from attnspan.data.tokenizer import Normalizer, Tokenizer
from attnspan.errors import BadRowError, InputError, SettingError, check_counts

if TYPE_CHECKING:
    from datasets import Dataset

    from attnspan.data.images.reader import ImageReader

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""The table of a folder of images in the layout ``imagefolder`` of `datasets`."""


@dataclass(frozen=True, kw_only=True)
class ImageFiles(ImageCorpus):
    """One table per split; a folder stands for its ``metadata.csv``, ``.jsonl`` or ``.parquet``.

    A cell of the image's column is the name of a file, relative to the table, or what the ``Image`` feature of
    `datasets` makes of it in parquet and Arrow files: bytes, or an object with ``bytes`` or ``path``.
    """

    train: FilePath
    validation: FilePath
    test: FilePath
    """Paths of tables or folders."""
    image: ColumnName
    target: ColumnName
    """Columns."""
    longest_side: int | None
    """Pixels; larger images are shrunk to it in proportion. Null for images as they are."""
    lowercase: bool = False
    """Convert targets to lower case."""
    minimum_count: int = 1
    """Minimum count of a word in training to enter the vocabulary of ``words``; rarer words become ``<unk>``."""
    on_bad_row: Annotated[str, f"{ERROR} or {SKIP}"] = ERROR
    """What to do with a row whose image cannot be read or whose text is none: ``error``, or ``skip`` and count it."""

    def reader(self) -> ImageReader:
        """How images are read."""
        from attnspan.data.images.reader import ImageReader

        return ImageReader(channels=self.channels, longest_side=self.longest_side)

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
            name = self._file_name(row[self.image])
            if name is not None and name not in images:
                path = table.parent / name
                images[name] = sha256(path) if path.is_file() else None
        return {"ending": TableFile.at(table).ending, "sha256": sha256(table), "images": sorted(images.items())}

    def load(self, context: BuildContext, splits: Sequence[str] = SPLITS) -> dict[str, Dataset]:
        """Read all rows and their images."""
        from attnspan.data.arrow import write_dataset
        from attnspan.data.images.columns import IMAGE_COLUMNS

        columns = [*COLUMNS, *IMAGE_COLUMNS]
        return {
            split: write_dataset(context.scratch / split, columns, self._examples(split, context)) for split in splits
        }

    def handle_bad_row(self, split: str, error: BadRowError, context: BuildContext) -> None:
        """Count the row if ``on_bad_row`` is ``skip``; otherwise raise ``error``."""
        if self.on_bad_row == ERROR:
            raise error
        context.skipped[split] += 1

    def train_tokenizer(self, tokenization: str, train: Dataset, *sides: str, **options: Any) -> Tokenizer:
        """The tokenizer of the normalised targets."""
        options |= {"minimum_count": self.minimum_count, "normalizer": self.normalizer}
        return super().train_tokenizer(tokenization, train, *sides, **options)

    @cached_property
    def normalizer(self) -> Normalizer:
        """Applied to targets."""
        return Normalizer(normalization=None, lowercase=self.lowercase)

    def _examples(self, split: str, context: BuildContext) -> Iterator[dict[str, Any]]:
        from attnspan.data.corpora.images import describe
        from attnspan.data.images.columns import image_columns
        from attnspan.data.images.reader import conversions_remark

        reader, conversions = self.reader(), dict[str, list[str]]()
        for number, (location, row) in enumerate(self._rows(split, context)):
            try:
                target = self.normalizer(text_cell(row, self.target, location))
                given, name = self._image(split, row[self.image], location)
                pixels, converted = reader.read(given, f"{location}: {name}")
            except BadRowError as error:
                self.handle_bad_row(split, error, context)
                continue
            for what in converted:
                conversions.setdefault(what, []).append(name)
            source = f"{name} ({describe(pixels)})"
            yield {"id": make_example_id(split, number), "source": source, "target": target, **image_columns(pixels)}
        context.remarks.extend(conversions_remark(split, conversions))

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

    def _image(self, split: str, cell: Any, location: str) -> tuple[Path | bytes, str]:
        """What is read as the image, and its name."""
        content = cell.get("bytes") if isinstance(cell, Mapping) else cell
        name = self._file_name(cell)
        if isinstance(content, bytes):
            return content, name or f"column '{self.image}'"
        if name is None:
            raise BadRowError(f"{location}: column '{self.image}' holds neither the name of a file nor an image")
        return self.table(split).parent / name, name

    @staticmethod
    def _file_name(cell: Any) -> str | None:
        name = cell.get("path") if isinstance(cell, Mapping) else cell
        return name if isinstance(name, str) and name else None

    def _check(self) -> None:
        super()._check()
        check_counts(minimum_count=self.minimum_count)
        check_choice("on_bad_row", "value", self.on_bad_row, (ERROR, SKIP))

    def _check_split(self, split: str) -> None:
        given = getattr(self, split)
        if not given:
            raise SettingError(split, "is empty; give the path of a table, or of a folder with metadata.csv")
        if Path(given).is_dir() and self.table(split) == Path(given):
            raise InputError(f"data.{split}: {given}: the folder has none of {', '.join(METADATA)}")
        check_file(TableFile.at(self.table(split)), f"data.{split}")
