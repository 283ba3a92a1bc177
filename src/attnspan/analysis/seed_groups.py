"""Arms whose seeds fall into groups: some learn, others fail. A mean with an interval describes neither.

Where seeds fail outright now and then, a 95% interval from a few of them covers the true difference in 70 to 90% of
studies (``benchmarks/interval_coverage.py``): most draws show no failure, and their intervals are narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attnspan.analysis.arms import Arm
from attnspan.analysis.lengths.regions import Region
from attnspan.analysis.metrics import ERROR_RATE
from attnspan.analysis.statistics import Floats

LEAST_GAP = 0.15
"""Of the error rate: less is no failure."""
FACTOR = 4.0
"""How many times wider the gap is than each group."""

Groups = tuple[tuple[int, ...], ...]
"""Seeds of each group, the one with fewer errors first."""


def seed_groups(arm: Arm, side: Sequence[Region]) -> Groups | None:
    """The two groups of an arm's seeds by their error rate on one side of the lengths of training, or None.

    Seeds that part only beyond the lengths of training are alike within them, so each side is judged by itself: as a
    whole and, where that shows no groups, by its longest sequences. Seeds that fail from different lengths on have a
    whole rate anywhere between those of the others and of chance.

    Args:
        arm: the arm.
        side: the regions of that side, bins in the order of their lengths and then the whole.
    """
    *bins, whole = side
    edits, tokens = (np.asarray(one) for one in arm.sums(ERROR_RATE))
    for region in (whole, *bins[-1:]):
        parts = split(edits[:, region.inside].sum(axis=1) / tokens[:, region.inside].sum(axis=1))
        if parts:
            return tuple(tuple(sorted(arm.seeds[k] for k in part)) for part in parts)
    return None


def split(rates: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Cut the error rates of some seeds into two groups, the lower first; None if they form one.

    The rates are sorted and cut at the widest gap. They are two groups if that gap is at least ``LEAST_GAP`` and
    ``FACTOR`` times as wide as each of the groups.
    """
    if len(rates) < 2:
        return None
    order = np.argsort(rates, kind="stable")
    gaps = np.diff(rates[order])
    cut = int(gaps.argmax()) + 1
    parts = (order[:cut], order[cut:])
    if gaps[cut - 1] < max(LEAST_GAP, FACTOR * max(float(np.ptp(rates[part])) for part in parts)):
        return None
    return parts


def group_means(by_seed: Floats, seeds: tuple[int, ...], groups: Groups) -> list[tuple[tuple[int, ...], float]]:
    """The mean over each group of what was measured by seed; a group without any of ``seeds`` is left out."""
    found = []
    for group in groups:
        inside = [value for value, seed in zip(by_seed, seeds, strict=True) if seed in group]
        if inside:
            found.append((group, float(np.mean(inside))))
    return found
