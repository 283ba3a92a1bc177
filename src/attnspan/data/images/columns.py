"""Images in the cache: columns of an Arrow file, read through a memory map into padded batches.

==========  ============  =====================================================
``pixels``  list<uint8>   [C, height, width], row by row
``height``  int32
``width``   int32
``digest``  str           sha256 of size and pixels, by which images are the same
==========  ============  =====================================================
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Int, Int32, Int64, UInt8
from numpy.typing import NDArray

from attnspan.data.arrow import DIGEST, PIXELS, sizes_of_images
from attnspan.data.images.batches import PatchBudgetBatches
from attnspan.data.images.reader import Pixels
from attnspan.models.source_size import patches

IMAGE_COLUMNS = (PIXELS, "height", "width", DIGEST)


def image_columns(pixels: Pixels) -> dict[str, Any]:
    """The columns of one image."""
    _, height, width = pixels.shape
    digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    return {"pixels": pixels.ravel(), "height": height, "width": width, "digest": digest}


class ImageColumn:
    """The images of a split, as views into the Arrow file."""

    def __init__(self, dataset: Dataset) -> None:
        chunks = [chunk for chunk in dataset.data[PIXELS].chunks if len(chunk)]
        self._values = [chunk.values.to_numpy() for chunk in chunks]
        self._offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        self._first = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        self.sizes: Int64[np.ndarray, "N 2"] = sizes_of_images(dataset.data.table)
        self.lengths: Int32[np.ndarray, " N"] = patches(self.sizes).astype(np.int32)
        self._channels = len(self._pixels(0)) // int(self.sizes[0].prod())

    def plan(self, target_lengths: Int[np.ndarray, " N"], batch_tokens: int, key: str) -> PatchBudgetBatches:
        """The batches of the split."""
        return PatchBudgetBatches(sizes=self.sizes, target_lengths=target_lengths, batch_tokens=batch_tokens, key=key)

    def padded(self, index: Int64[np.ndarray, " B"]) -> tuple[Int64[np.ndarray, "B 2"], UInt8[np.ndarray, "B C Y X"]]:
        """Sizes and pixels of the rows ``index``, with zeros to the highest and the widest."""
        sizes = self.sizes[index]
        return sizes, pad_images([self.image(row) for row in index.tolist()])

    def image(self, row: int) -> Pixels:
        """The pixels of one image."""
        return self._pixels(row).reshape(self._channels, *self.sizes[row])

    def _pixels(self, row: int) -> NDArray[np.uint8]:
        chunk = int(np.searchsorted(self._first, row, side="right")) - 1
        within = row - self._first[chunk]
        offsets = self._offsets[chunk]
        pixels: NDArray[np.uint8] = self._values[chunk][offsets[within] : offsets[within + 1]]
        return pixels


def images_of(dataset: Dataset, rows: list[int]) -> list[UInt8[np.ndarray, "Y X C"]]:
    """Some images of a split, as :meth:`ImageReader.read` takes arrays."""
    column = ImageColumn(dataset)
    return [column.image(row).transpose(1, 2, 0) for row in rows]


def pad_images(images: list[Pixels]) -> UInt8[np.ndarray, "B C Y X"]:
    """The images in one array, with zeros to the highest and the widest."""
    highest, widest = (max(image.shape[side] for image in images) for side in (1, 2))
    batch = np.zeros((len(images), len(images[0]), highest, widest), dtype=np.uint8)
    for row, image in enumerate(images):
        batch[row, :, : image.shape[1], : image.shape[2]] = image
    return batch
