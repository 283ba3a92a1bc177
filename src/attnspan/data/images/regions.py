"""Gold regions: the part of an image that an output token belongs to.

::

    image    24 x 36 pixels, three digits            gold     0,4,11,16-0  12,6,22,17-1  25,3,35,14-2
    target   7 0 3

A link is ``left,top,right,bottom-j``: a box in pixels from the upper left corner, right and bottom not included, and
the target token j, from 0. A token may have several boxes, or none.

An encoder sees the image as a grid of regions of equal size, those at the right and lower edge perhaps cut. A region
belongs to a box if its middle lies in it; where a box is so small that no region's middle does, it is the region with
the middle of the box. So the box becomes links between memory positions, which count the regions row by row, and target
tokens, as in texts (:mod:`attnspan.data.alignment`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from attnspan.data.alignment import GoldAlignment
from attnspan.errors import InputError

_LINK = re.compile(r"(\d+),(\d+),(\d+),(\d+)-(\d+)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Box:
    """A part of an image, in pixels; right and bottom are the first pixels that are no longer in it."""

    left: int
    top: int
    right: int
    bottom: int

    def __str__(self) -> str:
        return f"{self.left},{self.top},{self.right},{self.bottom}"


def write_regions(boxes: Iterable[tuple[Box, int]]) -> str:
    """Boxes and their target tokens as text."""
    return " ".join(f"{box}-{token}" for box, token in boxes)


def parse_regions(text: str, *, location: str, height: int, width: int, target_length: int) -> list[tuple[Box, int]]:
    """The boxes and target tokens of a text.

    Args:
        text: links separated by white space.
        location: of the text, for error messages.
        height: of the image, in pixels.
        width: of the image, in pixels.
        target_length: number of target tokens.

    Raises:
        InputError: a link is malformed, empty or out of range.
    """
    found = []
    for word in text.split():
        match = _LINK.fullmatch(word)
        if match is None:
            raise InputError(
                f"{location}: '{word}' is not a region; write left,top,right,bottom-token, as in 0,4,9,16-0"
            )
        left, top, right, bottom, token = map(int, match.groups())
        if not (left < right <= width and top < bottom <= height):
            raise InputError(f"{location}: region {word} is empty, or not within {width} x {height} pixels")
        if token >= target_length:
            raise InputError(
                f"{location}: region {word} refers to target token {token} (from 0), but the target has {target_length}"
            )
        found.append((Box(left=left, top=top, right=right, bottom=bottom), token))
    return found


def on_grid(
    boxes: Iterable[tuple[Box, int]], *, height: int, width: int, region_size: tuple[int, int]
) -> GoldAlignment:
    """The links between the regions of a grid and the target tokens; all are sure.

    Args:
        boxes: and their target tokens.
        height: of the image, in pixels.
        width: of the image, in pixels.
        region_size: height and width of a region, in pixels.
    """
    columns = -(-width // region_size[1])
    links = frozenset(
        (row * columns + column, token)
        for box, token in boxes
        for row in _within(box.top, box.bottom, height, region_size[0])
        for column in _within(box.left, box.right, width, region_size[1])
    )
    return GoldAlignment(sure=links, possible=links)


def _within(first: int, end: int, pixels: int, step: int) -> list[int]:
    """Which steps along ``pixels`` have their middle in [first, end), or else the one that has its middle."""
    middles = [(start + min(start + step, pixels)) / 2 for start in range(0, pixels, step)]
    return [k for k, middle in enumerate(middles) if first <= middle < end] or [(first + end) // 2 // step]
