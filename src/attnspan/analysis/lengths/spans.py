"""The attention span of an arm: how long an example may get before the arm loses its quality.

Quality is ``1 - error rate``, not below 0, or that of another metric (:meth:`Metric.quality`). An arm has lost its
quality where it keeps less than a share (``keep``, by default half) of the quality that the best arm has in the
shortest bin; that share is the threshold. A bin's quality stands at the mean length of its examples. It is interpolated
linearly between those points, and constant outside them. The span is where the curve *first* falls below the threshold:
an arm that recovers later has not kept its quality. A curve that never falls below gives ``> L``, where L is the
longest length tested; one that starts below gives ``< L``, where L is the shortest.

The interval inverts a test: it contains every length at which the curve is neither certainly above nor certainly below
the threshold (at 95%, with the uncertainty of curve and threshold together, and the seeds paired). At the true span
their difference is zero, so the interval covers it as often as the intervals of :mod:`attnspan.analysis.statistics`
cover a known difference. It is censored in the same way.

Which arm is the best is estimated too. The best of several estimates is too good on average, so an interval misses the
true span a little more often from below than from above. In simulations (``benchmarks/interval_coverage.py``,
the best of four arms chosen by the results that the threshold comes from), this costs less coverage than the intervals
have to spare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attnspan.analysis.arms import Arm
from attnspan.analysis.lengths.axis import LengthAxis
from attnspan.analysis.lengths.regions import Partition, Region
from attnspan.analysis.metrics import ERROR_RATE, Metric
from attnspan.analysis.statistics import Floats, Rates


@dataclass(frozen=True)
class Length:
    """A length in units of ``axis``, or a bound on one."""

    axis: LengthAxis
    value: float
    censored: str = ""
    """``>`` or ``<`` where the length lies beyond the lengths tested."""

    def __str__(self) -> str:
        text = self.axis.text(self.value)
        return f"{self.censored} {text}" if self.censored else text


@dataclass(frozen=True)
class Span:
    """A span and its 95% interval."""

    length: Length
    low: Length
    high: Length
    threshold: float
    """The quality to keep."""


@dataclass(frozen=True)
class ArmSpan:
    """The span of one arm, whose threshold the arm ``best`` sets."""

    arm: str
    seeds: tuple[int, ...]
    best: str
    span: Span


def best_arm(arms: Sequence[Arm], bins: Sequence[Region], metric: Metric) -> Arm:
    """The arm that is best on the shortest examples."""
    return max(arms, key=lambda arm: metric.sign * arm.rates(metric, bins).mean[0])


def spans(arms: Sequence[Arm], examples: Partition, keep: float, metric: Metric) -> list[ArmSpan]:
    """The span of every arm; none if no arm has any quality in the shortest bin, or the metric knows no quality."""
    if not metric.has_quality:
        return []
    bins = examples.whole_bins
    best = best_arm(arms, bins, metric)
    found = []
    for arm in arms:
        common = arm.common_seeds(best)
        seeds = common or arm.seeds
        rates, column = arm.rates(metric, bins, seeds), len(bins)
        if arm is best:
            column = 0
        elif common:
            rates = Rates.paired(rates, best.rates(metric, bins, common))
        else:
            rates = Rates.paired(rates, _as_known(best.rates(metric, bins), len(seeds)))
        span = find_span(
            rates,
            metric=metric,
            arm=list(range(len(bins))),
            best=column,
            at=np.array([region.mean_length for region in bins]),
            axis=examples.axis,
            shortest=float(examples.lengths.min()),
            longest=float(examples.lengths.max()),
            keep=keep,
        )
        if span:
            found.append(ArmSpan(arm.label, seeds, best.label, span))
    return found


def _as_known(rates: Rates, seeds: int) -> Rates:
    """The mean rates as if they were known exactly, with any ``seeds`` seeds."""
    by_seed = np.tile(rates.mean, (seeds, 1))
    return Rates(by_seed, np.zeros((seeds, *rates.influence.shape[1:])), rates.counts)


def find_span(
    rates: Rates,
    *,
    metric: Metric = ERROR_RATE,
    arm: list[int],
    best: int,
    at: Floats,
    axis: LengthAxis,
    shortest: float,
    longest: float,
    keep: float,
) -> Span | None:
    """The span of one arm; None if even the best arm has no quality to keep.

    Args:
        rates: of the arm and of the best arm, with the same seeds.
        metric: what they are rates of.
        arm: the columns of ``rates`` that are the arm's bins, by length.
        best: the column that is the best arm's shortest bin.
        at: the mean length of each bin.
        axis: what the lengths are.
        shortest: the shortest length tested.
        longest: the longest length tested.
        keep: the share of the best arm's quality to keep.
    """
    threshold = keep * metric.quality(rates.mean[best])
    if not threshold > 0:
        return None
    margins = metric.quality(rates.mean[arm]) - threshold
    below, above = Length(axis, shortest, "<"), Length(axis, longest, ">")

    lengths = np.arange(shortest, longest + axis.step / 2, axis.step)
    shares = np.stack([np.interp(lengths, at, unit) for unit in np.eye(len(at))], axis=1)  # lengths x bins
    weights = np.zeros((len(lengths), len(rates.mean)))
    weights[:, arm] += metric.quality_per_unit * shares
    weights[:, best] -= metric.quality_per_unit * keep
    halves = rates.half_widths(weights)
    margin = shares @ margins

    def first(true: np.ndarray) -> Length:
        where = np.flatnonzero(true)
        if not len(where):
            return above
        return Length(axis, float(lengths[where[0]])) if where[0] else below

    return Span(
        length=_crossing(at, margins, below, above),
        low=first(margin - halves <= 0),
        high=first(margin + halves < 0),
        threshold=float(threshold),
    )


def _crossing(at: Floats, margins: Floats, below: Length, above: Length) -> Length:
    """Where straight lines through ``margins`` first fall below zero."""
    under = np.flatnonzero(margins < 0)
    if not len(under):
        return above
    b = int(under[0])
    if b == 0:
        return below
    share = margins[b - 1] / (margins[b - 1] - margins[b])
    return Length(below.axis, float(at[b - 1] + share * (at[b] - at[b - 1])))
