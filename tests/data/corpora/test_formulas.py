"""Formulas: what the grammar may write, that a markup is what its image shows, and nothing else."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser

from attnspan.data.corpora.formulas import DIGITS, LETTERS, Formulas, formula
from attnspan.errors import InputError
from tests.data.small_corpora import ANY_LENGTH


def formulas(**changes: Any) -> Formulas:
    return Formulas(
        **{
            "channels": 1,
            "font_size": 14,
            "depth": 2,
            "target_tokens": "symbols",
            "train_lengths": [1, 4],
            "test_lengths": [1, 6],
            "train_size": 20,
            "validation_size": 8,
            "test_size": 18,
            "data_seed": 1,
            "limits": ANY_LENGTH,
        }
        | changes
    )


def depth_of(tokens: list[str]) -> int:
    """The most braces within one another."""
    open_braces = np.cumsum([(token == "{") - (token == "}") for token in tokens])
    assert open_braces.min() >= 0
    assert open_braces[-1] == 0
    return int(open_braces.max())


def test_a_formula_has_its_length_and_depth() -> None:
    draw = random.Random(1)
    for depth in (0, 1, 2):
        found = [(n, formula(n, depth, draw)) for n in range(1, 9) for _ in range(30)]
        for n, tokens in found:
            assert sum(token in LETTERS + DIGITS for token in tokens) == n
        assert max(depth_of(tokens) for _, tokens in found) == depth


def test_the_image_is_that_of_its_markup_and_of_no_other() -> None:
    """Set again it is the same pixels; two markups never look alike."""
    examples = list(formulas().rows("test"))
    lengths = [sum(token in LETTERS + DIGITS for token in example["target"].split()) for example in examples]
    assert lengths == [1, 2, 3, 4, 5, 6] * 3
    parser, font = MathTextParser("agg"), FontProperties(family="DejaVu Sans", size=14)
    shown: dict[tuple[Any, ...], str] = {}
    for example in examples:
        pixels = example["pixels"].reshape(example["height"], example["width"])
        again = np.asarray(parser.parse(f"${example['target']}$", dpi=72, prop=font).image)
        assert (pixels == again).all()
        assert pixels.max() > 127
        assert shown.setdefault((pixels.shape, pixels.tobytes()), example["target"]) == example["target"]
    assert len(shown) > 12


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"depth": -1}, r"data\.depth: must be a whole number of at least 0, not -1"),
        ({"font_size": 0}, r"data\.font_size: must be a whole number of at least 1, not 0"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"^{words}"):
        formulas(**changes).check()
