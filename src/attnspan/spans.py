"""The attention span of an arm: how long a source may get before the arm loses its quality.

That is, before it keeps less than a share (half) of the quality that the best arm has on the shortest sources.

Quality is ``1 - error rate``, not below 0. A bin's quality stands at the mean source length of its examples; between
those points it runs straight, and outside them it stays what the outermost bin has. The threshold is ``keep`` times the
quality of the best arm in the shortest bin. The span is where the curve *first* falls below the threshold: an arm that
recovers later has not kept its quality. A curve that never falls below gives ``> L``, L the longest source tested; one
that starts below gives ``< L``, L the shortest.

The interval turns a test round: a length belongs to it unless the curve there is surely above the threshold, or surely
below (at 95%, with the uncertainty of curve and threshold together, and the seeds paired). At the true span the
difference of the two is zero, so the interval covers it as often as the intervals of :mod:`attnspan.statistics` cover a
known difference. It is censored in the same way.

Which arm is the best is not known but estimated, and the best of several estimates is too good on average. So its
threshold is too high rather than too low: what is surely above it is safe to call so, but true spans would be called
too long. There the interval asks less: surely below is what is surely below the mean threshold of every arm that may be
the best, that is, every one not surely worse than the apparent best on the shortest sources. The true threshold is at
least that mean. Where one arm is surely the best, the two are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attnspan.statistics import Floats, Rates

_STEP = 0.1
"""Tokens between the lengths at which the interval is tested."""


@dataclass(frozen=True)
class Length:
    """A source length in tokens, or a bound on one."""

    tokens: float
    censored: str = ""
    """``>`` or ``<`` where the length lies beyond the lengths tested."""

    def __str__(self) -> str:
        return f"{self.censored} {self.tokens:.0f}" if self.censored else f"{self.tokens:.0f}"


@dataclass(frozen=True)
class Span:
    """A span and its 95% interval."""

    length: Length
    low: Length
    high: Length
    best: int
    """Which arm is the best by these rates, as it stands among ``shortest_bins``."""
    threshold: float
    """The quality that had to be kept: ``keep`` times that of the best arm."""


def find_span(
    rates: Rates, *, arm: list[int], shortest_bins: list[int], at: Floats, shortest: int, longest: int, keep: float
) -> Span | None:
    """The span of one arm.

    Args:
        rates: error rates of the arm and of all arms, with the same seeds.
        arm: the columns of ``rates`` that are the arm's bins, by length.
        shortest_bins: the columns that are the shortest bin of every arm, this one too.
        at: the mean source length of each bin.
        shortest: source length tested.
        longest: source length tested.
        keep: the share of the best arm's quality that must be kept.

    Returns:
        None if even the best arm has no quality to keep.
    """
    best = min(shortest_bins, key=lambda column: float(rates.mean[column]))
    threshold = keep * (1 - rates.mean[best])
    if not threshold > 0:
        return None
    quality = np.maximum(1 - rates.mean[arm], 0)
    below, above = Length(shortest, "<"), Length(longest, ">")

    lengths = np.arange(shortest, longest + _STEP / 2, _STEP)
    shares = np.stack([np.interp(lengths, at, unit) for unit in np.eye(len(at))], axis=1)  # lengths x bins

    def margin(columns: list[int]) -> tuple[Floats, Floats]:
        """Quality at each length minus the mean of these columns' thresholds, and half its interval's width."""
        weights = np.zeros((len(lengths), len(rates.mean)))
        weights[:, arm] -= shares
        weights[:, columns] += keep / len(columns)
        return shares @ quality - keep * (1 - rates.mean[columns].mean()), rates.half_widths(weights)

    def first(true: np.ndarray) -> Length:
        where = np.flatnonzero(true)
        if not len(where):
            return above
        return Length(float(lengths[where[0]])) if where[0] else below

    over_best, half_best = margin([best])
    over, half = margin(_contenders(rates, shortest_bins, best))
    return Span(
        length=_crossing(at, quality - threshold, below, above),
        low=first(over_best - half_best <= 0),
        high=first(over + half < 0),
        best=shortest_bins.index(best),
        threshold=float(threshold),
    )


def _contenders(rates: Rates, columns: list[int], best: int) -> list[int]:
    """Those of ``columns`` whose rate is not surely above that of ``best``, which is among them."""
    weights = np.zeros((len(columns), len(rates.mean)))
    weights[np.arange(len(columns)), columns] += 1
    weights[:, best] -= 1
    worse = weights @ rates.mean > rates.half_widths(weights)
    return [column for column, surely in zip(columns, worse, strict=True) if column == best or not surely]


def _crossing(at: Floats, margins: Floats, below: Length, above: Length) -> Length:
    """Where straight lines through ``margins`` first fall below zero."""
    under = np.flatnonzero(margins < 0)
    if not len(under):
        return above
    b = int(under[0])
    if b == 0:
        return below
    share = margins[b - 1] / (margins[b - 1] - margins[b])
    return Length(float(at[b - 1] + share * (at[b] - at[b - 1])))
