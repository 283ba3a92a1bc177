"""Scenes: the caption can be read off the picture, word by word, by its boxes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from attnspan.data.corpora.scenes import COLOURS, Scenes
from attnspan.data.images.regions import Box, on_grid, parse_regions
from attnspan.errors import InputError
from tests.data.small_corpora import ANY_LENGTH


def scenes(**changes: Any) -> Scenes:
    return Scenes(
        **{
            "channels": 3,
            "grid": 3,
            "cell": 16,
            "object_sides": [9, 14],
            "target_tokens": "symbols",
            "train_lengths": [1, 4],
            "test_lengths": [1, 6],
            "train_size": 60,
            "validation_size": 20,
            "test_size": 60,
            "data_seed": 1,
            "limits": ANY_LENGTH,
        }
        | changes
    )


def shape_of(inside: np.ndarray) -> str:
    """The shape by how much of its box it fills, and by its upper corners."""
    filled, (top, bottom) = inside.mean(), (inside[0], inside[-1])
    if filled == 1:
        return "square"
    if bottom.all() and not top.all():
        return "triangle"
    return "circle" if filled > 0.68 else "cross"


def test_captions_say_what_is_there() -> None:
    colours = {value: name for name, value in COLOURS.items()}
    for example in scenes().rows("test"):
        pixels = example["pixels"].reshape(3, 48, 48)
        words = example["target"].split()
        rest, places = pixels.copy(), dict[Box, list[str]]()
        boxes = parse_regions(example["alignment"], location="a", height=48, width=48, target_length=len(words))
        for box, token in boxes:
            places.setdefault(box, []).append(words[token])
        background = int(np.bincount(pixels[0].ravel()).argmax())
        for box, (colour, shape) in places.items():
            part = pixels[:, box.top : box.bottom, box.left : box.right]
            inside = (part != background).any(axis=0)
            assert {tuple(value) for value in part[:, inside].T.tolist()} == {COLOURS[colour]}
            assert colours[COLOURS[colour]] == colour
            assert shape_of(inside) == shape
            rest[:, box.top : box.bottom, box.left : box.right] = background
        assert (rest == background).all()
        cells = [(box.top // 16, box.left // 16) for box in places]
        assert cells == sorted(set(cells))
        expected = ["a", *next(iter(places.values()))]
        for (above, after), named in zip(pairwise(cells), list(places.values())[1:], strict=True):
            expected += ["left", "of"] if above[0] == after[0] else ["above"]
            expected += ["a", *named]
        assert words == expected


def test_lengths_are_numbers_of_objects() -> None:
    counts = [example["target"].split().count("a") for example in scenes().rows("test")]
    assert sorted(counts) == sorted([1, 2, 3, 4, 5, 6] * 10)


def test_a_sixteenth_of_the_regions_show_the_named_object() -> None:
    """So much of its mass uniform attention has on it, as sweeps/scenes.yaml says."""
    shares = []
    for example in scenes(test_size=120).rows("test"):
        tokens = len(example["target"].split())
        boxes = parse_regions(example["alignment"], location="a", height=48, width=48, target_length=tokens)
        links = on_grid(boxes, height=48, width=48, region_size=(4, 4)).sure
        shares += [sum(link[1] == token for link in links) / 144 for token in {token for _, token in boxes}]
    assert np.mean(shares) == pytest.approx(0.062, abs=0.0005)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_lengths": [1, 10]}, r"data\.test_lengths: a scene has room for 9 objects \(data\.grid=3\), not 10"),
        ({"channels": 1}, r"data\.channels: must be 3"),
        ({"object_sides": [2, 14]}, r"data\.object_sides: must be \[smallest, largest\] between 3 and 16"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"^{words}"):
        scenes(**changes).check()
