import functools

import numpy as np
import pytest

from attnspan.analysis.lengths.axis import LengthAxis
from attnspan.analysis.lengths.spans import Span
from attnspan.analysis.lengths.spans import find_span as find_span_of
from attnspan.analysis.statistics import Rates

find_span = functools.partial(find_span_of, axis=LengthAxis("source"))
AT = np.array([10.0, 20.0, 30.0])


def rates(*by_seed: list[float], n: int = 50, wobble: float = 0.0) -> Rates:
    """Known rates of three bins, n examples of one token each a bin."""
    members = np.kron(np.eye(3, dtype=bool), np.ones(n, dtype=bool))
    noise = wobble * np.tile([1.0, -1.0], 3 * n // 2)
    table = np.stack([np.repeat(one, n) + noise for one in by_seed])
    return Rates.measure(table, np.ones(3 * n), members)


def span(*by_seed: list[float], keep: float = 0.5, **options: float) -> Span:
    found = find_span(rates(*by_seed, **options), arm=[0, 1, 2], best=0, at=AT, shortest=5, longest=35, keep=keep)
    assert found is not None
    return found


def test_by_hand():
    # quality 0.8, 0.6, 0.2; threshold 0.5 * 0.8 = 0.4; from 0.6 at 20 to 0.2 at 30 it is 0.4 half-way, at 25
    found = span([0.2, 0.4, 0.8])
    assert found.threshold == pytest.approx(0.4)
    assert found.length.value == pytest.approx(25.0)
    assert str(found.length) == "25"


def test_keep():
    # threshold 0.75 * 0.8 = 0.6, which is the quality at 20; it is first below just beyond
    assert span([0.2, 0.4, 0.8], keep=0.75).length.value == pytest.approx(20.0)


def test_never_below_is_censored_at_the_longest_source():
    found = span([0.2, 0.2, 0.3], wobble=0.1)
    assert [str(found.length), str(found.low), str(found.high)] == ["> 35", "> 35", "> 35"]


def test_never_above_is_censored_at_the_shortest_source():
    # columns 0 to 2 are a poor arm, column 3 the best arm's first bin
    both = Rates.paired(rates([0.9, 0.9, 0.9]), rates([0.1, 0.5, 0.9]))
    found = find_span(both, arm=[0, 1, 2], best=3, at=AT, shortest=5, longest=35, keep=0.5)
    assert found is not None
    assert str(found.length) == "< 5"


def test_the_first_fall_counts():
    assert span([0.2, 0.8, 0.2]).length.value < 20


def test_quality_is_not_below_zero():
    # quality 0.8, 0 (not -1.2), 0: halves at 0.4, half-way from 10 to 20
    assert span([0.2, 2.2, 2.2]).length.value == pytest.approx(15.0)


def test_no_quality_at_all_has_no_span():
    assert find_span(rates([1.0, 1.1, 1.2]), arm=[0, 1, 2], best=0, at=AT, shortest=5, longest=35, keep=0.5) is None


def test_interval_holds_the_estimate_and_grows_with_the_spread_of_seeds():
    narrow = span([0.2, 0.40, 0.8], [0.2, 0.41, 0.8], [0.2, 0.39, 0.8], wobble=0.1)
    wide = span([0.2, 0.4, 0.8], [0.2, 0.45, 0.85], [0.2, 0.35, 0.75], wobble=0.1)
    for one in (narrow, wide):
        assert one.low.value <= one.length.value <= one.high.value
    assert wide.high.value - wide.low.value > narrow.high.value - narrow.low.value


def test_the_threshold_is_uncertain_too():
    # the arm is the same under both seeds, but the best arm, which sets the threshold, is not
    arm = rates([0.3, 0.4, 0.8], [0.3, 0.4, 0.8], wobble=0.01)
    best = rates([0.18, 0.2, 0.2], [0.22, 0.2, 0.2], wobble=0.01)
    found = find_span(Rates.paired(arm, best), arm=[0, 1, 2], best=3, at=AT, shortest=5, longest=35, keep=0.5)
    assert found is not None
    # threshold 0.5 * (0.8 +- 12.7062 * 0.02) = 0.4 +- 0.127; quality falls by 0.04 a token, so 25 +- 3.2
    assert found.low.value == pytest.approx(25 - 3.2, abs=0.2)
    assert found.high.value == pytest.approx(25 + 3.2, abs=0.2)


def test_interval_is_censored_where_it_leaves_the_lengths_tested():
    found = span([0.2, 0.3, 0.5], [0.2, 0.3, 0.8], [0.2, 0.3, 0.55], wobble=0.1)
    assert found.high.censored == ">"
