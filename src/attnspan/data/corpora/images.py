"""What corpora of images share: how the images are read, and the columns that keep them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from attnspan.data.corpora.base import Corpus, GeneratedExamples
from attnspan.errors import SettingError

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
