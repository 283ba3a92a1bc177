"""Which length a study goes by."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from attnspan.analysis.lengths.axis import LengthAxis, choose_axis
from attnspan.analysis.lengths.training_range import TrainingRange
from attnspan.errors import InputError

TRAINED = TrainingRange(source=9, target=22)


def records_of(sources: list[int], targets: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"source_length": sources, "target_length": targets})


@pytest.mark.parametrize(
    ("sources", "targets", "name"),
    [
        ([9] * 40, [22] * 40, "source"),  # nothing is longer
        ([10] * 40, [22] * 40, "source"),
        ([9] * 40, [23] * 40, "target"),
        ([10] * 40, [23] * 40, "source"),  # both are
        ([9] * 40, [23] * 29 + [22] * 11, "source"),  # too few for a bin
        ([9] * 40, [23] * 30 + [22] * 10, "target"),
    ],
)
def test_by_default_it_is_the_side_that_goes_beyond_training(sources: list[int], targets: list[int], name: str) -> None:
    assert choose_axis(None, [None, None], [TRAINED], records_of(sources, targets)) == LengthAxis(name)


def test_the_user_comes_before_the_data_set_and_that_before_the_default() -> None:
    records = records_of([9] * 40, [23] * 40)
    assert choose_axis(None, ["source", "source"], [TRAINED], records).name == "source"
    assert choose_axis("target", ["source", "source"], [TRAINED], records).name == "target"
    assert choose_axis(None, ["source", None], [TRAINED], records).name == "target"  # the runs do not agree


def test_a_multiple_is_of_the_longest_in_training() -> None:
    records = records_of([9, 18], [11, 33])
    axis = choose_axis("target-multiple", [None], [TRAINED], records)
    assert axis.of(records).tolist() == [0.5, 1.5]
    assert choose_axis("source-multiple", [None], [TRAINED], records).of(records).tolist() == [1, 2]
    assert LengthAxis("target").of(records).tolist() == [11, 33]


@pytest.mark.parametrize(
    ("asked", "ranges", "words"),
    [
        ("targets", [TRAINED], "--length targets: there is no such length; did you mean 'target'"),
        ("target-multiple", [TrainingRange(9, None)], "do not say how long the longest target in training was"),
        ("source-multiple", [TRAINED, TrainingRange(20, 40)], r"differs between arms \(9, 20\); --length source"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(asked: str, ranges: list[TrainingRange], words: str) -> None:
    with pytest.raises(InputError, match=words):
        choose_axis(asked, [None], ranges, records_of([9], [22]))


def test_labels_say_which_length_it_is() -> None:
    source, multiple = LengthAxis("source"), LengthAxis("target-multiple", 22)
    assert (source.label(50, 60), source.label(8, 9)) == ("51–60", "9")
    assert (multiple.label(1, 1.5), multiple.label(0, 0.5)) == ("1–1.5×", "0–0.5×")
    assert source.examples("51–60") == "sources of 51–60 tokens"
    assert multiple.examples("1–1.5×") == "targets of 1–1.5 times the longest in training"
    assert {LengthAxis(name).key for name in ("source", "target", "source-multiple", "target-multiple")} == {
        "source_length", "target_length", "source_length_multiple", "target_length_multiple"
    }  # fmt: skip


def test_extrapolation_is_judged_on_both_sides() -> None:
    records = records_of([9, 10, 9, 10], [22, 22, 23, 23])
    assert TRAINED.exceeded_by(records).tolist() == [False, True, True, True]
    assert TrainingRange(9, None).exceeded_by(records).tolist() == [False, True, False, True]
    assert np.array_equal(TrainingRange(10, 23).exceeded_by(records), [False] * 4)
