"""What corpora of images share: how the images are read, and the columns that keep them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from attnspan.data.corpora.base import (
    COLUMNS,
    SPLITS,
    BuildContext,
    Corpus,
    GeneratedExamples,
    check_choice,
    make_example_id,
)
from attnspan.data.corpora.kinds import ColumnName
from attnspan.data.corpora.text import ERROR, SKIP
from attnspan.data.readers.columns import text_cell
from attnspan.data.tokenizer import Normalizer, Tokenizer
from attnspan.errors import BadRowError, SettingError, check_counts

if TYPE_CHECKING:
    from datasets import Dataset

    from attnspan.data.images.reader import ImageReader, Pixels
    from attnspan.data.source_reader import SourceReader


@dataclass(frozen=True, kw_only=True)
class ImageCorpus(Corpus):
    """A corpus whose sources are images, and whose targets are texts."""

    has_images: ClassVar[bool] = True

    channels: int
    """Of every pixel: 1 for grey values, 3 for colours."""

    def reader(self) -> ImageReader:
        """How images are read, here and when the trained model is given others."""
        from attnspan.data.images.reader import ImageReader

        return ImageReader(channels=self.channels)

    def train_tokenizers(self, train: Dataset) -> Mapping[str, SourceReader]:
        """The reader of the images, and the target's tokenizer."""
        return {"source": self.reader(), **super().train_tokenizers(train)}

    def _check(self) -> None:
        super()._check()
        self.reader()


METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""The table of a folder of images in the layout ``imagefolder`` of `datasets`."""


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """A row of a table of images."""

    location: str
    """For error messages."""
    cells: Mapping[str, Any]
    """By column."""
    image: Any
    """The image's cell: the name of a file, or what the ``Image`` feature of `datasets` makes of an image in parquet
    and Arrow files: bytes, or an object with ``bytes`` or ``path``."""
    folder: Callable[[], Path]
    """The directory in which the names of files begin; asked for only where there is such a name."""

    def content(self, column: str) -> tuple[Path | bytes, str]:
        """What is read as the image, and its name; ``column`` is the image's, for error messages.

        Raises:
            BadRowError: the cell holds no image.
        """
        content = self.image.get("bytes") if isinstance(self.image, Mapping) else self.image
        name = file_name(self.image)
        if isinstance(content, bytes):
            return content, name or f"column '{column}'"
        if name is None:
            raise BadRowError(f"{self.location}: column '{column}' holds neither the name of a file nor an image")
        return self.folder() / name, name


def file_name(cell: Any) -> str | None:
    """The name of a file that the cell of an image has, if it has one."""
    name = cell.get("path") if isinstance(cell, Mapping) else cell
    return name if isinstance(name, str) and name else None


@dataclass(frozen=True, kw_only=True)
class ImageTable(ImageCorpus):
    """Images that the user supplies, each with a text, in the rows of tables."""

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

    @abstractmethod
    def image_rows(self, split: str, context: BuildContext) -> Iterator[ImageRow]:
        """All rows of ``split`` in order, not validated.

        Raises:
            InputError: they cannot be read, or lack a column.
        """

    def reader(self) -> ImageReader:
        """How images are read."""
        from attnspan.data.images.reader import ImageReader

        return ImageReader(channels=self.channels, longest_side=self.longest_side)

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
        from attnspan.data.images.columns import image_columns
        from attnspan.data.images.reader import conversions_remark

        reader, conversions = self.reader(), dict[str, list[str]]()
        for number, row in enumerate(self.image_rows(split, context)):
            try:
                target = self.normalizer(text_cell(row.cells, self.target, row.location))
                given, name = row.content(self.image)
                pixels, converted = reader.read(given, f"{row.location}: {name}")
            except BadRowError as error:
                self.handle_bad_row(split, error, context)
                continue
            for what in converted:
                conversions.setdefault(what, []).append(name)
            source = f"{name} ({describe(pixels)})"
            yield {"id": make_example_id(split, number), "source": source, "target": target, **image_columns(pixels)}
        context.remarks.extend(conversions_remark(split, conversions))

    def _check(self) -> None:
        super()._check()
        check_counts(minimum_count=self.minimum_count)
        check_choice("on_bad_row", "value", self.on_bad_row, (ERROR, SKIP))


@dataclass(frozen=True, kw_only=True)
class GeneratedImages(GeneratedExamples, ImageCorpus):
    """Images that are drawn."""

    minimum_length: ClassVar[tuple[int, str]] = (1, "things")

    @abstractmethod
    def images(self, split: str, lengths: Iterator[int]) -> Iterator[tuple[Pixels, str, str]]:
        """Draw one image per length: pixels [C, height, width], target, and its regions as text."""

    def examples(self, split: str, lengths: Iterator[int]) -> Iterator[dict[str, Any]]:
        """One example per length."""
        from attnspan.data.images.columns import image_columns

        for pixels, target, regions in self.images(split, lengths):
            source = describe(pixels)
            yield {"source": source, "target": target, "alignment": regions, **image_columns(pixels)}

    def columns(self, split: str) -> list[str]:
        """The columns of ``split``."""
        from attnspan.data.images.columns import IMAGE_COLUMNS

        return [*super().columns(split), *IMAGE_COLUMNS]


def describe(pixels: Pixels) -> str:
    """What stands for an image where a text would: its height and width."""
    return f"{pixels.shape[1]} x {pixels.shape[2]} pixels"


def check_range(key: str, value: Any, *, at_least: int, at_most: int) -> None:
    """Raise :class:`SettingError` if ``value`` is not [smallest, largest] within the limits."""
    numbers = list(value)
    whole = len(numbers) == 2 and all(
        isinstance(one, int | np.integer) and not isinstance(one, bool) for one in numbers
    )
    if not whole or not at_least <= numbers[0] <= numbers[1] <= at_most:
        raise SettingError(key, f"must be [smallest, largest] between {at_least} and {at_most}, not {numbers}")
