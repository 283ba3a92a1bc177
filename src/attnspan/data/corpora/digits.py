"""Strips and pages of real handwritten digits, to be written down in order.

::

    source      an image of n digits, from left to right and line by line
    target      7 0 3
    alignment   0,4,11,15-0 12,6,22,16-1 25,3,35,13-2      where each digit stands

The digits are the 1,797 scans of 8 x 8 pixels that come with scikit-learn (the test set of Alpaydin and Kaynak 1998,
written by 13 persons). They are divided among the splits before anything is composed, so no scan is in two splits. Who
wrote which scan is not known: the same persons are in all splits.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from attnspan.data.corpora.base import TEST, TRAIN, VALIDATION
from attnspan.data.corpora.images import GeneratedImages, check_range
from attnspan.data.corpora.kinds import Range
from attnspan.errors import InputError, check_counts

if TYPE_CHECKING:
    from attnspan.data.images.reader import Pixels

SIDE, BRIGHTEST = 8, 16
"""Of a scan: pixels along each side, and the largest value."""
SHARES = {TRAIN: 0.7, VALIDATION: 0.1, TEST: 0.2}
"""Of the scans, by split."""
_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
"""Of the scans and their labels, as bytes."""


@dataclass(frozen=True, kw_only=True)
class Digits(GeneratedImages):
    """n digits, each in a cell of its own, where place and size are drawn. The background is 0, ink up to 255."""

    aligned: ClassVar[bool] = True
    minimum_length: ClassVar[tuple[int, str]] = (1, "digits")

    cell: int
    """Height and width of a cell in pixels."""
    digit_sides: Range
    """Smallest and largest height and width of a digit, in pixels."""
    line: int | None
    """The most digits in a line; null for one line, however long."""

    def images(self, split: str, lengths: Iterator[int]) -> Iterator[tuple[Pixels, str, str]]:
        """One image per number of digits."""
        from attnspan.data.images.regions import Box, write_regions

        draw = random.Random(f"{self.data_seed} {split}")
        scans, labels = scans_of(split, self.data_seed)
        drawn = {side: scaled(scans, side) for side in range(self.digit_sides[0], self.digit_sides[1] + 1)}
        for n in lengths:
            per_line = min(n, self.line or n)
            pixels = np.zeros((1, -(-n // per_line) * self.cell, per_line * self.cell), dtype=np.uint8)
            target, boxes = [], []
            for position in range(n):
                scan, side = draw.randrange(len(scans)), draw.randint(*self.digit_sides)
                row, column = divmod(position, per_line)
                top = row * self.cell + draw.randint(0, self.cell - side)
                left = column * self.cell + draw.randint(0, self.cell - side)
                pixels[0, top : top + side, left : left + side] = drawn[side][scan]
                target.append(str(labels[scan]))
                boxes.append((Box(left=left, top=top, right=left + side, bottom=top + side), position))
            yield pixels, " ".join(target), write_regions(boxes)

    def _check(self) -> None:
        super()._check()
        check_counts(cell=self.cell)
        check_range("digit_sides", self.digit_sides, at_least=1, at_most=self.cell)
        if self.line is not None:
            check_counts(line=self.line)


def scans_of(split: str, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The scans [N, 8, 8] of a split, and the digits [N] that they show.

    Raises:
        InputError: scikit-learn is not installed, or has other scans.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError("data=digits: needs scikit-learn: pip install 'attnspan[images]'") from None
    loaded = load_digits()
    scans, labels = loaded.images.astype(np.uint8), loaded.target.astype(np.uint8)
    if hashlib.sha256(scans.tobytes() + labels.tobytes()).hexdigest() != _SHA256:
        raise InputError("data=digits: the digits of the installed scikit-learn are not the 1,797 that are known")
    order = list(range(len(scans)))
    random.Random(f"{seed}").shuffle(order)
    ends = np.cumsum([round(share * len(order)) for share in SHARES.values()])
    start = dict(zip(SHARES, [0, *ends], strict=False))[split]
    end = dict(zip(SHARES, [*ends[:-1], len(order)], strict=True))[split]
    return scans[order[start:end]], labels[order[start:end]]


def scaled(scans: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The scans [N, side, side] with values up to 255, interpolated between the middles of pixels."""
    middles = (np.arange(side) + 0.5) * SIDE / side - 0.5
    weights = np.stack([np.interp(middles, np.arange(SIDE), unit) for unit in np.eye(SIDE)], axis=1)  # [side, 8]
    values = np.einsum("sy,nyx,tx->nst", weights, scans.astype(np.float64), weights)
    return np.rint(values * 255 / BRIGHTEST).astype(np.uint8)
