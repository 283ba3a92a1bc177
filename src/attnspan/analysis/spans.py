"""The attention span of an arm: how long a source may get before the arm loses its quality.

That is, before it keeps less than a share (half) of the quality that the best arm has on the shortest sources.

Quality is ``1 - error rate``, not below 0. A bin's quality stands at the mean source length of its examples; between
those points it runs straight, and outside them it stays what the outermost bin has. The threshold is ``keep`` times the
quality of the best arm in the shortest bin. The span is where the curve *first* falls below the threshold: an arm that
recovers later has not kept its quality. A curve that never falls below gives ``> L``, L the longest source tested; one
that starts below gives ``< L``, L the shortest.

The interval turns a test round: a length belongs to it unless the curve there is surely above the threshold, or surely
below (at 95%, with the uncertainty of curve and threshold together, and the seeds paired). At the true span the
difference of the two is zero, so the interval covers it as often as the intervals of
:mod:`attnspan.analysis.statistics` cover a known difference. It is censored in the same way.

Which arm is the best is estimated too, and the best of several estimates is too good on average, so that true spans are
called too long a little oftener than too short. Measured (``benchmarks/interval_coverage.py``, the best of four arms
chosen by the results that its threshold comes from), this costs less than the intervals have to spare.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attnspan.analysis.statistics import Floats, Rates

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
    threshold: float
    """The quality that had to be kept."""


def find_span(
    rates: Rates, *, arm: list[int], best: int, at: Floats, shortest: int, longest: int, keep: float
) -> Span | None:
    """The span of one arm.

    Args:
        rates: error rates of the arm and of the best arm, with the same seeds.
        arm: the columns of ``rates`` that are the arm's bins, by length.
        best: the column that is the best arm's shortest bin.
        at: the mean source length of each bin.
        shortest: source length tested.
        longest: source length tested.
        keep: the share of the best arm's quality that must be kept.

    Returns:
        None if even the best arm has no quality to keep.
    """
    threshold = keep * (1 - rates.mean[best])
    if not threshold > 0:
        return None
    margins = np.maximum(1 - rates.mean[arm], 0) - threshold
    below, above = Length(shortest, "<"), Length(longest, ">")

    lengths = np.arange(shortest, longest + _STEP / 2, _STEP)
    shares = np.stack([np.interp(lengths, at, unit) for unit in np.eye(len(at))], axis=1)  # lengths x bins
    weights = np.zeros((len(lengths), len(rates.mean)))
    weights[:, arm] -= shares
    weights[:, best] += keep
    halves = rates.half_widths(weights)
    margin = shares @ margins

    def first(true: np.ndarray) -> Length:
        where = np.flatnonzero(true)
        if not len(where):
            return above
        return Length(float(lengths[where[0]])) if where[0] else below

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
    return Length(float(at[b - 1] + share * (at[b] - at[b - 1])))
