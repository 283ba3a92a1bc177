import numpy as np
import pytest

from attnspan.analysis.lengths.axis import LengthAxis
from attnspan.analysis.lengths.bins import Bins, parse_edges
from attnspan.analysis.lengths.bins import make_bins as make_bins_of
from attnspan.errors import InputError

SOURCE = LengthAxis("source")


def make_bins(*arguments) -> Bins:
    return make_bins_of(SOURCE, *arguments)


def lengths(*ranges: tuple[int, int, int]) -> np.ndarray:
    """(first, last, how many of each)."""
    return np.concatenate([np.repeat(np.arange(first, last + 1), many) for first, last, many in ranges])


def test_default_is_tens_with_an_edge_on_the_training_maximum():
    bins = make_bins(lengths((5, 100, 40)), [60])
    assert bins.edges == (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
    assert bins.labels[0] == "1–10"
    assert bins.labels[-1] == "91–100"
    assert bins.notes == ()


def test_an_edge_lies_on_the_training_maximum_when_it_is_no_round_number():
    bins = make_bins(lengths((5, 100, 40)), [47])
    assert 47 in bins.edges
    assert np.diff(bins.edges)[1:].tolist() == [10] * (len(bins) - 1)


def test_right_closed():
    bins = make_bins(lengths((1, 20, 40)), [10], [0, 10, 20])
    members = bins.members(np.array([10, 11]))
    assert members[:, 0].tolist() == [True, False]
    assert members[:, 1].tolist() == [False, True]


def test_every_example_lies_in_exactly_one_bin():
    some = lengths((3, 97, 7))
    assert (make_bins(some, [41]).members(some).sum(axis=0) == 1).all()


def test_a_small_bin_is_merged_and_said():
    bins = make_bins(lengths((1, 10, 10), (11, 20, 1), (21, 30, 10)), [30], [0, 10, 20, 30])
    assert bins.edges in {(0, 20, 30), (0, 10, 30)}
    assert any("11–20 (10)" in note for note in bins.notes)


def test_29_are_too_few_and_30_are_enough():
    few = np.repeat([5, 15], [100, 29])
    enough = np.repeat([5, 15], [100, 30])
    assert len(make_bins(few, [], [0, 10, 20])) == 1
    assert len(make_bins(enough, [], [0, 10, 20])) == 2


def test_never_merged_across_the_training_maximum():
    # 61–70 holds 10 examples and 51–60 few enough to be the smaller neighbour; it must go to 71–80 all the same
    bins = make_bins(lengths((41, 50, 50), (51, 60, 4), (61, 70, 1), (71, 80, 50)), [60], [40, 50, 60, 70, 80])
    assert bins.edges == (40, 50, 60, 80)


def test_too_few_beyond_the_training_maximum_stay_apart_and_are_marked():
    bins = make_bins(lengths((1, 60, 10), (61, 63, 5)), [60], [0, 30, 60, 100])
    assert 60 in bins.edges
    assert any("61–" in note and "(15)" in note and "no neighbour" in note for note in bins.notes)


def test_a_gap_lends_its_name_to_no_bin():
    tested = lengths((1, 10, 10), (41, 50, 10))
    bins = make_bins(tested, [50], [0, 10, 20, 30, 40, 50])
    counts = dict(zip(bins.labels, bins.members(tested).sum(axis=1).tolist(), strict=True))
    assert counts == {"1–10": 100, "11–20": 0, "21–30": 0, "31–40": 0, "41–50": 100}
    assert bins.notes == ()


def test_a_small_bin_beyond_a_gap_joins_the_next_that_has_examples():
    bins = make_bins(lengths((1, 10, 10), (41, 50, 1)), [], [0, 10, 20, 30, 40, 50])
    assert bins.labels == ["1–50"]
    assert bins.notes == ("Bins with fewer than 30 examples were merged into a neighbour: 41–50 (10).",)


def test_asked_for_edges_beyond_the_lengths_tested_name_no_bin():
    bins = make_bins(lengths((101, 200, 10)), [60], [0, 50, 100, 150, 200, 300])
    assert bins.labels == ["101–150", "151–200"]


@pytest.mark.parametrize("trained", [8, 47, 60])
def test_bins_of_a_part_of_the_lengths_are_named_as_among_all_of_them(trained):
    """As where a report on an evaluation of longer sources is set beside one on the test and the evaluation."""
    test, longer = lengths((2, trained + 4, 40)), lengths((101, 400, 10))
    alone = make_bins(longer, [trained]).labels
    both = make_bins(np.concatenate([test, longer]), [trained]).labels
    assert [label for label in both if label in alone] == alone


def test_edges_asked_for_are_widened_and_get_the_training_maximum():
    bins = make_bins(lengths((1, 100, 40)), [60], [10, 50])
    assert bins.edges == (0, 10, 50, 60, 100)
    assert len(bins.notes) == 3


def test_two_training_maxima_are_both_edges():
    bins = make_bins(lengths((5, 100, 40)), [25, 60])
    assert {25, 60} <= set(bins.edges)


def test_trained_longer_than_tested():
    bins = make_bins(lengths((5, 50, 40)), [60])
    assert bins.edges[-1] == 50


@pytest.mark.parametrize("text", ["5,x", "5", "", "20,10", "5,5", "-5,10", "nan,3", "0,inf"])
def test_bad_edges_are_refused(text):
    with pytest.raises(InputError, match="--bins"):
        parse_edges(text)
