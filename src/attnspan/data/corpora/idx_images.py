"""Images of single things in idx files, as Fashion-MNIST and MNIST have them: one at a time, or rows of them.

::

    source      an image of n things, from left to right
    target      bag sneaker shirt
    alignment   0,0,28,28-0 28,0,56,28-1 56,0,84,28-2      where each stands

A twelfth of the training file is validation; which images, depends on ``data_seed``. Test is the file ``t10k``. Each
image of a split is used once before any is used again. So with n = 1 and the sizes of the files every image is used
once.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attnspan.data.corpora.base import SPLITS, TEST, VALIDATION
from attnspan.data.corpora.images import GeneratedImages
from attnspan.data.corpora.kinds import FilePath
from attnspan.errors import InputError, SettingError

if TYPE_CHECKING:
    from attnspan.data.images.reader import Pixels

VALIDATION_SHARE = 12
"""One in so many images of the training file is in validation."""
_NAMES = {TEST: "t10k"}

_Things = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Images [N, height, width], and the number of the class of each [N]."""


@dataclass(frozen=True, kw_only=True)
class IdxImages(GeneratedImages):
    """Rows of n images from idx files, side by side. Lengths are numbers of images."""

    aligned: ClassVar[bool] = True
    minimum_length: ClassVar[tuple[int, str]] = (1, "images")

    path: FilePath
    """The directory with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
    ``t10k-labels-idx1-ubyte``, or the same names with ``.gz``."""
    classes: Annotated[Sequence[str], "a list of words, as in [shirt,bag]"]
    """The word for each class, in the order of their numbers, without white space."""

    def images(self, split: str, lengths: Iterator[int]) -> Iterator[tuple[Pixels, str, str]]:
        """One row per number of images."""
        from attnspan.data.images.regions import Box, write_regions

        things, labels = self._things(split)
        height, width = things.shape[1:]
        dealt = _dealt(len(things), random.Random(f"{self.data_seed} {split}"))
        for n in lengths:
            chosen = list(islice(dealt, n))
            pixels = np.concatenate(things[chosen], axis=1)[None]
            target = " ".join(self.classes[label] for label in labels[chosen])
            boxes = [(Box(left=at * width, top=0, right=(at + 1) * width, bottom=height), at) for at in range(n)]
            yield pixels, target, write_regions(boxes)

    def identity(self, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
        """The fields, with the hash of the images and their classes in place of the path."""
        files = {}
        for name in dict.fromkeys(_NAMES.get(split, "train") for split in splits):
            things, labels = self._files[name]
            files[name] = hashlib.sha256(things.tobytes() + labels.tobytes()).hexdigest()
        return super().identity(splits) | {"path": files}

    def split_location(self, split: str) -> str:
        """The directory and the split."""
        return f"{self.path} {split}"

    @cached_property
    def _files(self) -> _Files:
        return _Files(self.path)

    def _things(self, split: str) -> _Things:
        """The images of a split, and their classes."""
        things, labels = self._files[_NAMES.get(split, "train")]
        if split == TEST:
            return things, labels
        order = list(range(len(things)))
        random.Random(f"{self.data_seed}").shuffle(order)
        held_out = max(1, len(order) // VALIDATION_SHARE)
        chosen = order[:held_out] if split == VALIDATION else order[held_out:]
        return things[chosen], labels[chosen]

    def _check(self) -> None:
        super()._check()
        if not self.classes:
            raise SettingError("classes", "is empty; give a word for each class")
        for word in self.classes:
            if not word or word.split() != [word]:
                raise SettingError("classes", f"must be words without white space, not {word!r}")
        if self.channels != 1:
            raise SettingError("channels", f"must be 1, because the images are grey, not {self.channels}")
        if not Path(self.path).is_dir():
            raise SettingError("path", f"{self.path}: no such directory")

    def _check_split(self, split: str) -> None:
        name = _NAMES.get(split, "train")
        _, labels = self._files[name]
        if (largest := int(labels.max())) >= len(self.classes):
            where = f"{self.path}: image {int(labels.argmax()) + 1} of {name} is of class {largest} (from 0)"
            raise InputError(f"data.classes: {where}, and there are words for {len(self.classes)}")
        if name == "train" and len(labels) < 2:
            raise InputError(f"data.path: {self.path}: one image cannot be both training and validation")


class _Files(dict[str, _Things]):
    """The images and classes of each pair of files, ``train`` and ``t10k``, read when they are first asked for."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def __missing__(self, name: str) -> _Things:
        from attnspan.data.images.idx_files import find_idx_file, read_idx

        try:
            of_images = find_idx_file(Path(self._path), f"{name}-images-idx3-ubyte")
            of_labels = find_idx_file(Path(self._path), f"{name}-labels-idx1-ubyte")
            things, labels = read_idx(of_images, dimensions=3), read_idx(of_labels, dimensions=1)
        except InputError as error:
            raise InputError(f"data.path: {error}") from error
        if len(things) != len(labels):
            numbers = f"{of_images.name} has {len(things)} images, and {of_labels.name} {len(labels)} classes"
            raise InputError(f"data.path: {self._path}: {numbers}")
        self[name] = things, labels
        return self[name]


def _dealt(count: int, draw: random.Random) -> Iterator[int]:
    """0 ... count - 1 in a drawn order, then in another, and so on."""
    order = list(range(count))
    while True:
        draw.shuffle(order)
        yield from order
