"""Drawn scenes of coloured shapes, and captions that name the objects and how one stands to the next.

::

    source      an image with, say, a red circle at its upper left, a blue cross to its right, a green square below
    target      a red circle left of a blue cross above a green square
    alignment   colour and shape of each object belong to its box; the other words to none

Objects stand in different cells of a grid and are named in reading order. The next one is to the right in the same row
(``left of``) or in a row further down (``above``). So a scene has one caption, and a model can reach it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attnspan.data.corpora.images import GeneratedImages, check_range
from attnspan.data.corpora.kinds import Range
from attnspan.errors import SettingError, check_counts

if TYPE_CHECKING:
    from attnspan.data.images.reader import Pixels
    from attnspan.data.images.regions import Box

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (230, 210, 40),
    "white": (240, 240, 240),
}
_Offsets = NDArray[np.float64]
SHAPES: dict[str, Callable[[_Offsets, _Offsets], NDArray[np.bool_]]] = {
    "circle": lambda y, x: x**2 + y**2 <= 1,
    "square": lambda y, x: np.ones(np.broadcast(y, x).shape, dtype=bool),
    "triangle": lambda y, x: np.abs(x) <= (y + 1) / 2,
    "cross": lambda y, x: (np.abs(x) <= 1 / 3) | (np.abs(y) <= 1 / 3),
}
"""Where a shape is, from the offsets of pixels to its middle, -1 to 1 downwards and to the right."""
DARKEST, BRIGHTEST_BACKGROUND = 0, 60


@dataclass(frozen=True, kw_only=True)
class Scenes(GeneratedImages):
    """Lengths are numbers of objects."""

    aligned: ClassVar[bool] = True
    minimum_length: ClassVar[tuple[int, str]] = (1, "objects")

    grid: int
    """Cells along each side of a scene."""
    cell: int
    """Height and width of a cell in pixels."""
    object_sides: Range
    """Smallest and largest height and width of an object, in pixels."""

    def images(self, split: str, lengths: Iterator[int]) -> Iterator[tuple[Pixels, str, str]]:
        """One scene per number of objects."""
        from attnspan.data.images.regions import write_regions

        draw = random.Random(f"{self.data_seed} {split}")
        for n in lengths:
            side = self.grid * self.cell
            pixels = np.full((3, side, side), draw.randint(DARKEST, BRIGHTEST_BACKGROUND), dtype=np.uint8)
            words: list[str] = []
            boxes: list[tuple[Box, int]] = []
            previous = None
            for place in sorted(draw.sample(range(self.grid**2), n)):
                row = place // self.grid
                if previous is not None:
                    words += ["left", "of"] if row == previous else ["above"]
                previous = row
                colour, shape = draw.choice(list(COLOURS)), draw.choice(list(SHAPES))
                box = self._paint(pixels, place, colour, shape, draw)
                words += ["a", colour, shape]
                boxes += [(box, len(words) - 2), (box, len(words) - 1)]
            yield pixels, " ".join(words), write_regions(boxes)

    def _paint(self, pixels: Pixels, place: int, colour: str, shape: str, draw: random.Random) -> Box:
        """Paint an object somewhere in its cell, and say where."""
        from attnspan.data.images.regions import Box

        side = draw.randint(*self.object_sides)
        row, column = divmod(place, self.grid)
        top = row * self.cell + draw.randint(0, self.cell - side)
        left = column * self.cell + draw.randint(0, self.cell - side)
        offsets = (np.arange(side) + 0.5) * 2 / side - 1
        inside = SHAPES[shape](offsets[:, None], offsets[None, :])
        part = pixels[:, top : top + side, left : left + side]
        part[:, inside] = np.array(COLOURS[colour], dtype=np.uint8)[:, None]
        return Box(left=left, top=top, right=left + side, bottom=top + side)

    def _check(self) -> None:
        super()._check()
        check_counts(grid=self.grid, cell=self.cell)
        check_range("object_sides", self.object_sides, at_least=3, at_most=self.cell)
        if self.channels != 3:
            raise SettingError("channels", f"must be 3, because captions name colours, not {self.channels}")
        for key in ("train_lengths", "test_lengths"):
            most: Any = getattr(self, key)[1]
            if most > self.grid**2:
                raise SettingError(
                    key, f"a scene has room for {self.grid**2} objects (data.grid={self.grid}), not {most}"
                )
