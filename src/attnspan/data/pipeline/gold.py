"""The source positions of an example that an encoder has, and which of them each target token belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attnspan.data.alignment import GoldAlignment
from attnspan.data.corpora.base import ALIGNMENT
from attnspan.data.images.regions import on_grid, parse_regions


def source_positions(
    example: Mapping[str, Any], region_size: tuple[int, int] | None
) -> tuple[int, GoldAlignment | None]:
    """S of an example, and its gold links; None where they are not known.

    Args:
        example: a row of a prepared split, without pixels.
        region_size: height and width in pixels of a position in an image; None where it is a token.

    Raises:
        InputError: the links are malformed or out of range.
    """
    text, name, T = example.get(ALIGNMENT), example["id"], len(example["target_ids"])
    if region_size is None:
        S = len(example["source_ids"])
        links = None if text is None else GoldAlignment.parse(text, location=name, source_length=S, target_length=T)
        return S, links
    height, width = example["height"], example["width"]
    S = -(-height // region_size[0]) * -(-width // region_size[1])
    if text is None:
        return S, None
    boxes = parse_regions(text, location=name, height=height, width=width, target_length=T)
    return S, on_grid(boxes, height=height, width=width, region_size=region_size)
