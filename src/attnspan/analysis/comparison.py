"""Arms against their baselines: the advantage in every region, and how it changes with length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnspan.analysis.arms import Arm
from attnspan.analysis.lengths.axis import LengthAxis
from attnspan.analysis.lengths.regions import Region, members
from attnspan.analysis.lengths.training_range import SIDES
from attnspan.analysis.metrics import Metric, RecordMetric
from attnspan.analysis.statistics import NOTHING, Estimate, Floats, Rates, holm, randomisation


@dataclass(frozen=True)
class Difference:
    """By how much an arm is better than its baseline, on the same examples with the same seeds."""

    arm: str
    baseline: str
    region: Region
    seeds: tuple[int, ...]
    advantage: Estimate
    """The baseline's error rate minus the arm's: above 0, the arm is better.

    Of a metric of which more is better it is the arm's minus the baseline's.
    """
    by_seed: Floats
    """The advantage with each of ``seeds``."""
    p: float
    """The interval's p-value against no advantage."""
    p_holm: float
    """``p``, corrected (Holm) for the number of bins of this comparison."""
    p_models: float
    """Paired randomisation over examples: do *these trained models* differ? It knows nothing of other seeds.

    It is nan for metrics that are no ratio of sums over examples, such as BLEU.
    """
    p_models_holm: float


@dataclass(frozen=True)
class Trend:
    """How one arm changes with length, on one side of the longest training length; ``per`` is of the length's axis."""

    arm: str
    side: str
    bins: int
    seeds: tuple[int, ...]
    factor: Estimate
    """The factor of the metric per ``per`` more length (from a line through its logarithms)."""
    relative_drop: Estimate
    """The share of its quality in the shortest bin that the arm has lost in the longest."""
    baseline: str | None
    growth: Estimate
    """Interaction of arm and length: the growth of the advantage over the baseline per ``per`` more length."""


def differences(arm: Arm, baseline: Arm, regions: Sequence[Region], metric: Metric) -> list[Difference]:
    """The advantage of an arm over its baseline in every region; none where they have no seed in common."""
    seeds = arm.common_seeds(baseline)
    if not seeds:
        return []
    rates = baseline.paired_rates(metric, arm, regions, seeds)
    contrasts = -metric.sign * np.concatenate([np.eye(len(regions)), -np.eye(len(regions))], axis=1)
    p = np.array([rates.p_value(contrast) for contrast in contrasts])
    p_models = _randomised(arm, baseline, seeds, regions, metric)
    is_bin = np.array([not region.total for region in regions])
    p_holm = _holm_over(p, is_bin)
    p_models_holm = _holm_over(p_models, is_bin)
    return [
        Difference(
            arm.label, baseline.label, region, seeds, rates.estimate(contrasts[k]), rates.by_seed @ contrasts[k],
            float(p[k]), float(p_holm[k]), float(p_models[k]), float(p_models_holm[k]),
        )
        for k, region in enumerate(regions)
    ]  # fmt: skip


def trends(arm: Arm, baseline: Arm | None, regions: Sequence[Region], axis: LengthAxis, metric: Metric) -> list[Trend]:
    """Slope and drop of an arm on each side that has two bins or more."""
    found = []
    for side in SIDES:
        bins = [region for region in regions if region.side == side and not region.total]
        if len(bins) < 2:
            continue
        own = arm.rates(metric, bins)
        at = np.array([region.mean_length for region in bins])
        centred = at - at.mean()
        slope = np.asarray(axis.per * centred / (centred**2).sum())  # of the least-squares line through one value a bin
        growth = NOTHING
        if baseline and (seeds := arm.common_seeds(baseline)):
            rates = baseline.paired_rates(metric, arm, bins, seeds)
            growth = rates.estimate(-metric.sign * np.concatenate([slope, -slope]))
        found.append(
            Trend(
                arm.label, side, len(bins), arm.seeds, _factor(own, slope), _relative_drop(own, metric),
                baseline.label if baseline else None, growth,
            )
        )  # fmt: skip
    return found


def _randomised(arm: Arm, baseline: Arm, seeds: Sequence[int], regions: Sequence[Region], metric: Metric) -> Floats:
    """See :func:`randomisation`, of the metric's sums over examples; nan for a metric that has none.

    Where two arms divide by the same numbers, as by reference tokens, only the numerators differ. Where they do not,
    each example counts by how much it is above the rate of both arms together, to which a swap leaves them nearly true.
    """
    if not isinstance(metric, RecordMetric):
        return np.full(len(regions), np.nan)
    (above, below), (its_above, its_below) = (
        [part.sum(axis=0) for part in one.sums(metric, seeds)] for one in (baseline, arm)
    )
    inside = members(regions)
    if np.array_equal(below, its_below):
        return randomisation(above - its_above, inside)
    found = []
    for chosen in inside:
        total = below[chosen].sum() + its_below[chosen].sum()
        rate = (above[chosen].sum() + its_above[chosen].sum()) / total if total else 0.0
        found.append(randomisation(above - its_above - rate * (below - its_below), chosen[None])[0])
    return np.asarray(found)


def _holm_over(p_values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Holm's correction over the chosen p-values; the others stay as they are."""
    corrected = p_values.copy()
    corrected[chosen] = holm(p_values[chosen].tolist())
    return corrected


def _factor(rates: Rates, slope: Floats) -> Estimate:
    if not (rates.mean > 0).all():
        return NOTHING  # 0 has no logarithm
    logarithm = rates.estimate(slope / rates.mean, float(slope @ np.log(rates.mean)))
    value, low, high = np.exp([logarithm.value, logarithm.low, logarithm.high])
    return Estimate(float(value), float(low), float(high), rates.seeds)


def _relative_drop(rates: Rates, metric: Metric) -> Estimate:
    if not metric.has_quality:
        return NOTHING
    first, last = metric.quality(rates.mean[[0, -1]])
    if not first > 0:
        return NOTHING
    weights = np.zeros(len(rates.mean))
    weights[0], weights[-1] = last / first**2 * metric.quality_per_unit, -metric.quality_per_unit / first
    return rates.estimate(weights, float(1 - last / first)).clipped(-np.inf, 1.0)  # quality is not below 0
