"""How long a hypothesis may become, by hand."""

from __future__ import annotations

import pytest
import torch

from attnspan.models.decoding.length_limit import LengthLimit


def lengths(limit: LengthLimit, *sources: int) -> list[int]:
    return limit(torch.tensor(sources)).tolist()


def test_tokens_for_each_source_token_and_a_margin() -> None:
    assert lengths(LengthLimit(ratio=1.5, margin=2), 1, 2, 3, 10) == [3, 5, 6, 17]


def test_a_ratio_is_not_rounded_to_single_precision() -> None:
    """2^25 + 1 is no single-precision number."""
    assert lengths(LengthLimit(ratio=1.0, margin=0), 2**25 + 1) == [2**25 + 1]


@pytest.mark.parametrize(
    ("training", "sources", "expected"),
    [
        # Copying 5 to 50 symbols: 8 times the longest is within reach.
        ({"longest_source": 50, "longest_target": 50, "largest_ratio": 1.0}, [5, 50, 400], [55, 100, 450]),
        # SCAN's length split: targets up to 22 in training, "jump around left twice" 16 from 4; test has 48 from 9.
        ({"longest_source": 9, "longest_target": 22, "largest_ratio": 4.0}, [4, 9], [38, 58]),
        # One pair of 100 targets to one source token does not give 10,000 tokens to a source of 100.
        ({"longest_source": 100, "longest_target": 100, "largest_ratio": 100.0}, [1, 100], [102, 300]),
        # A class as target.
        ({"longest_source": 40, "longest_target": 1, "largest_ratio": 0.5}, [2, 40, 100], [1, 3, 6]),
    ],
    ids=["copy", "scan", "outlier", "class"],
)
def test_the_limit_that_training_suggests(training: dict[str, float], sources: list[int], expected: list[int]) -> None:
    assert lengths(LengthLimit.of_training(**training), *sources) == expected  # type: ignore[arg-type]


def test_what_is_set_stands_and_the_rest_is_filled_in() -> None:
    training = LengthLimit(ratio=4.0, margin=22)
    assert LengthLimit(ratio=None, margin=None).or_else(training) == training
    assert LengthLimit(ratio=None, margin=7).or_else(training) == LengthLimit(ratio=4.0, margin=7)
    assert LengthLimit(ratio=0.5, margin=None).or_else(training) == LengthLimit(ratio=0.5, margin=22)
    with pytest.raises(RuntimeError, match="not known"):
        LengthLimit(ratio=0.5, margin=None)(torch.tensor([3]))
