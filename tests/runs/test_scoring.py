from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnspan.runs.records import edit_distance, is_repeating, longest_loop
from attnspan.training.mean_metric import Mean


def levenshtein(a: list[int], b: list[int]) -> int:
    """The textbook recurrence, its border 0, 1, 2, ..."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (x != y))
    return row[-1]


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_edits_are_levenshtein(a: list[int], b: list[int]) -> None:
    assert edit_distance(a, b) == levenshtein(a, b)


def test_edits_by_hand() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance([], [1, 2, 3]) == 3  # the border of the table counts every insertion
    assert edit_distance([1, 2, 3], []) == 3


@pytest.mark.parametrize(
    ("tokens", "loop"),
    [
        ("", 1),
        ("a", 1),
        ("ab", 1),
        ("aa", 2),
        ("abab", 2),
        ("ababab", 3),
        ("xabababy", 3),
        ("aaaaa", 5),
        ("abcabcabca", 3),
    ],
)
def test_longest_loop(tokens: str, loop: int) -> None:
    assert longest_loop(tokens) == loop


def test_repeating_is_more_than_the_reference_does() -> None:
    assert is_repeating("abcdcdcdcd", "abcd")
    assert not is_repeating("abcdcdcd", "abcd")  # three times is not yet a loop
    assert not is_repeating("aaaa", "aaaa")
    assert is_repeating("aaaaa", "aaaa")


def test_the_mean_counts_tokens_not_batches() -> None:
    mean = Mean()
    mean.update(torch.tensor(6.0), 2)
    mean.update(torch.tensor(1.0), 8)
    assert float(mean.compute()) == pytest.approx(0.7)
