"""Boxes of pixels become links to the regions of a grid."""

from __future__ import annotations

import pytest

from attnspan.data.images.regions import Box, on_grid, parse_regions, write_regions
from attnspan.errors import InputError


def links(text: str, *, height: int, width: int, region_size: tuple[int, int]) -> list[tuple[int, int]]:
    boxes = parse_regions(text, location="a", height=height, width=width, target_length=9)
    return sorted(on_grid(boxes, height=height, width=width, region_size=region_size).sure)


def test_a_region_belongs_to_a_box_that_holds_its_middle() -> None:
    """6 x 10 pixels in regions of 2 x 4: middles at 1, 3, 5 and, the last one being cut, at 2, 6, 9."""
    size = {"height": 6, "width": 10, "region_size": (2, 4)}
    assert links("0,0,10,6-3", **size) == [(at, 3) for at in range(9)]
    assert links("2,1,7,4-0", **size) == [(0, 0), (1, 0), (3, 0), (4, 0)]  # rows 0, 1 and columns 0, 1
    assert links("3,2,6,4-0", **size) == [(4, 0)]  # no column has its middle in [3, 6): that of the box counts, 4
    assert links("7,4,8,5-2 9,0,10,1-1", **size) == [(2, 1), (7, 2)]


def test_boxes_are_written_as_they_are_read() -> None:
    boxes = [(Box(left=1, top=2, right=3, bottom=5), 0), (Box(left=0, top=0, right=9, bottom=1), 4)]
    text = write_regions(boxes)
    assert text == "1,2,3,5-0 0,0,9,1-4"
    assert parse_regions(text, location="a", height=5, width=9, target_length=5) == boxes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2,3-0", r"^a: '1,2,3-0' is not a region; write left,top,right,bottom-token"),
        ("1,2,3,4p0", "is not a region"),
        ("0,0,9,9-0", "is empty, or not within 8 x 9 pixels"),
        ("2,0,2,4-0", "is empty"),
        ("0,0,1,1-3", r"refers to target token 3 \(from 0\), but the target has 3"),
    ],
)
def test_bad_regions(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_regions(text, location="a", height=9, width=8, target_length=3)
