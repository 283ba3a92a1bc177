import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from attnspan.analysis.statistics import Rates, holm, randomisation


def two_seeds() -> Rates:
    """30 examples of 4 tokens; 15 of them have 2 edits under seed 0 and 4 under seed 1, the others none."""
    edits = np.zeros((2, 30))
    edits[0, :15], edits[1, :15] = 2, 4
    return Rates.measure(edits, np.full(30, 4.0), np.ones((1, 30), dtype=bool))


ONE = np.array([1.0])


def test_a_rate_is_edits_over_tokens_averaged_over_seeds():
    # seed 0: 30 edits / 120 tokens = 0.25; seed 1: 60 / 120 = 0.5
    assert two_seeds().by_seed[:, 0].tolist() == [0.25, 0.5]
    assert two_seeds().estimate(ONE).value == 0.375


def test_a_rate_is_a_ratio_of_sums_and_not_a_mean_of_ratios():
    # 1 edit in 1 token and 0 edits in 9 tokens: 1 / 10, not (1 + 0) / 2
    rates = Rates.measure(np.array([[1.0, 0.0]]), np.array([1.0, 9.0]), np.ones((1, 2), dtype=bool))
    assert rates.mean[0] == pytest.approx(0.1)


def test_denominators_may_depend_on_the_seed():
    # seed 0: 1 of 1 + 9; seed 1: 1 of 4 + 1
    denominators = np.array([[1.0, 9.0], [4.0, 1.0]])
    rates = Rates.measure(np.array([[1.0, 0.0], [0.0, 1.0]]), denominators, np.ones((1, 2), dtype=bool))
    assert rates.by_seed[:, 0].tolist() == [0.1, 0.2]
    # influence (value - rate * denominator) / total, times sqrt(2 / 1)
    assert rates.influence[1, 0].tolist() == pytest.approx([-0.8 / 5 * 2**0.5, 0.8 / 5 * 2**0.5])


def test_interval_by_hand():
    # V_seed = (0.125^2 + 0.125^2) / 1 / 2 = 0.015625
    # influence: seed 0 (2 - 1)/120 and (0 - 1)/120, seed 1 twice that; over seeds 1.5/120; all times sqrt(30/29)
    # V_example = 30 * (1.5/120)^2 * 30/29 = 0.0048491; V_interaction = 30 * 2 * (0.5/120)^2 * 30/29 / 2 = 0.00053879
    # V = 0.015625 + 0.0048491 - 0.0005388 = 0.0199353; t(1) = 12.7062, t(29) = 2.04523
    # quantile = (0.015625 * 12.7062 + 0.0043103 * 2.04523) / 0.0199353 = 10.4011; half = 10.4011 * sqrt(V) = 1.46856
    estimate = two_seeds().estimate(ONE)
    assert estimate.high - estimate.value == pytest.approx(1.46856, abs=1e-4)
    assert estimate.value - estimate.low == pytest.approx(1.46856, abs=1e-4)


def test_one_seed_covers_examples_only():
    edits = np.zeros((1, 30))
    edits[0, :15] = 2
    rates = Rates.measure(edits, np.full(30, 4.0), np.ones((1, 30), dtype=bool))
    # the mean of 30 values of 0 and 0.5: t(29) * s / sqrt(30)
    expected = stats.t.ppf(0.975, 29) * np.std(edits[0] / 4, ddof=1) / np.sqrt(30)
    estimate = rates.estimate(ONE)
    assert estimate.high - estimate.value == pytest.approx(expected)
    assert estimate.seeds == 1


def test_seeds_that_agree_by_luck_do_not_make_the_interval_narrower_than_examples_alone():
    generator = np.random.default_rng(0)
    first = generator.binomial(10, 0.3, 200).astype(float)
    other = generator.permutation(first)  # the same rate exactly, from other examples
    rates = Rates.measure(np.stack([first, other]), np.full(200, 10.0), np.ones((1, 200), dtype=bool))
    example_means = (first + other) / 2 / 10
    alone = stats.t.ppf(0.975, 199) * example_means.std(ddof=1) / np.sqrt(200)
    estimate = rates.estimate(ONE)
    assert estimate.high - estimate.value >= alone * (1 - 1e-9)


def test_no_variation_gives_no_interval_instead_of_one_of_width_zero():
    rates = Rates.measure(np.zeros((3, 40)), np.full(40, 5.0), np.ones((1, 40), dtype=bool))
    estimate = rates.estimate(ONE)
    assert estimate.value == 0
    assert np.isnan(estimate.low)
    assert np.isnan(estimate.high)


@pytest.mark.parametrize("seeds", [1, 2, 3, 10])
def test_p_value_and_interval_say_the_same(seeds):
    generator = np.random.default_rng(seeds)
    table = generator.normal(0.1, 1, (seeds, 50))
    whole = np.ones((1, 50), dtype=bool)
    estimate = Rates.measure(table, np.ones(50), whole).estimate(ONE)
    to_the_edge = table - estimate.low  # shifted, so that the interval just touches zero
    assert Rates.measure(to_the_edge, np.ones(50), whole).p_value(ONE) == pytest.approx(0.05, rel=1e-6)


def test_pairing_removes_what_two_arms_share():
    generator = np.random.default_rng(1)
    difficulty = generator.binomial(10, 0.5, 300).astype(float)
    seeds = np.arange(3.0)[:, None]
    first, second = (
        Rates.measure(difficulty + seeds + shift, np.full(300, 20.0), np.ones((1, 300), dtype=bool)) for shift in (0, 1)
    )
    estimate = Rates.paired(second, first).estimate(np.array([1.0, -1.0]))
    assert estimate.value == pytest.approx(1 / 20)
    assert np.isnan(estimate.low)  # each example differs by the same amount under each seed: nothing varies
    assert first.half_widths(ONE[None])[0] > 0.1


def test_examples_outside_a_rate_do_not_touch_it():
    edits = np.arange(12.0).reshape(2, 6)
    members = np.array([[True, True, True, False, False, False]])
    changed = edits.copy()
    changed[:, 3:] = 1e6
    a, b = (Rates.measure(one, np.full(6, 3.0), members).estimate(ONE) for one in (edits, changed))
    assert a == b


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.04 times 3, 2, 1: 0.03, 0.04, 0.04; nan is no test
    assert holm([0.04, 0.01, np.nan, 0.02])[:2] == pytest.approx([0.04, 0.03])
    assert holm([0.04, 0.01, np.nan, 0.02])[3] == pytest.approx(0.04)
    assert np.isnan(holm([0.04, 0.01, np.nan, 0.02])[2])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_never_reorders():
    # 0.01 * 2 = 0.02, then 0.011 * 1 = 0.011 must not fall below it
    assert holm([0.01, 0.011]) == pytest.approx([0.02, 0.02])


def test_randomisation_equals_the_exact_sign_test_by_enumeration():
    # six differences of 1: only all-plus and all-minus are as extreme as 6, so p = 2 / 2^6 = 0.03125
    p = randomisation(np.ones(6), np.ones((1, 6), dtype=bool), draws=40_000)
    assert p[0] == pytest.approx(2 / 64, abs=0.004)


def test_randomisation_of_no_difference_is_one():
    assert randomisation(np.zeros(10), np.ones((1, 10), dtype=bool))[0] == 1.0


def test_randomisation_keeps_each_test_to_its_examples():
    differences = np.array([1.0] * 10 + [1.0, -1.0] * 5)
    members = np.zeros((2, 20), dtype=bool)
    members[0, :10], members[1, 10:] = True, True
    p = randomisation(differences, members)
    assert p[0] < 0.01
    assert p[1] == 1.0


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_hold_the_truth_as_often_as_they_promise(seeds):
    """A glance at what benchmarks/interval_coverage.py measures at length; its output is beside it."""
    path = Path(__file__).parents[2] / "benchmarks" / "interval_coverage.py"
    specification = importlib.util.spec_from_file_location("coverage_of_intervals", path)
    coverage = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = coverage
    specification.loader.exec_module(coverage)
    shares = coverage.simulate(coverage.OF_TWO[4], seeds, 150)  # the second arm is better, seeds differ a lot
    assert 91 <= shares["differences"] <= 99
    assert 91 <= shares["spans"] <= 100
    assert shares["bootstrap"] < 91
