"""Arms ranked over several data sets, as in Agarwal et al. (2021, "Deep RL at the edge of the statistical precipice").

- The *score* of a run is its quality on one side of the longest training length: 1 - error rate, not below 0, or that
  of another metric. It needs no further normalisation: on every data set 1 means no error, and 0 as many errors as
  reference tokens.
- The *interquartile mean* of an arm is the mean of the middle half of its scores, over the runs of all data sets. So
  neither one failed run nor one easy data set decides.
- The *probability of improvement* P(X > Y) is how often a run of X beats a run of Y on the same data set (a tie counts
  one half), averaged over the data sets.

Intervals come from a bootstrap that resamples runs within each data set. Percentiles of resamples of S runs, as in
rliable, are too narrow with few seeds: with three they cover a true interquartile mean in 79% of cases. So S - 1 runs
are drawn, which makes the variance unbiased (Rao and Wu 1988). The percentiles are then moved away from the value by
the ratio of the quantiles of Student's t and of the normal distribution. Student's t has one degree of freedom per run
beyond the first (for the interquartile mean, which uses half of the runs, one per two). The coverage is 94 to 97% with
3, 5 and 10 seeds, and 87 to 91% with 2 (``benchmarks/ranking.txt``). The intervals say what other seeds would give on
*these* data sets.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from attnspan.analysis.lengths.training_range import SIDES
from attnspan.analysis.statistics import LEVEL, Estimate, Floats
from attnspan.analysis.study import AT_CHANCE, IMPROVING, Study

DRAWS = 2_000
_CUT = 0.25

Scores = Sequence[Floats]
"""The scores of one arm's runs, for each data set."""


@dataclass(frozen=True)
class Standing:
    """One arm over all data sets."""

    arm: str
    shown: str
    """Its label with the marks that it has on any of the data sets, as :meth:`Study.shown`."""
    iqm: Estimate
    """Interquartile mean of its scores."""
    scores: tuple[Floats, ...]
    """For each data set, by seed."""


@dataclass(frozen=True)
class Ranking:
    """The arms that every data set has, on one side of the longest training length."""

    side: str
    data: tuple[str, ...]
    """As they are shown, the data sets that have examples on this side."""
    standings: tuple[Standing, ...]
    """The highest interquartile mean first."""
    improvements: dict[tuple[str, str], Estimate]
    """(arm, other arm) -> the probability that a run of the one beats a run of the other on the same data set."""
    improving: dict[str, tuple[str, ...]]
    """Arm -> the data sets on which a run of it was still improving when its training ended."""
    at_chance: dict[str, tuple[str, ...]]
    """Arm -> the data sets on which a run of it ended no better than chance."""


def rank(studies: Sequence[Study]) -> list[Ranking]:
    """Rank the arms that all ``studies`` have, in range and in extrapolation, where at least two data sets reach it.

    There is no ranking by a metric that knows no quality.
    """
    arms = common_arms(studies) if studies[0].metric.has_quality else []
    rankings = []
    for side in SIDES:
        data, scores = [], {arm: [] for arm in arms}  # type: tuple[list[str], dict[str, list[Floats]]]
        for study in studies:
            whole = [r for r in study.regions(study.arms[0]) if r.total and r.side == side]
            if whole:
                data.append(study.data_shown)
                for label in arms:
                    arm = study.arm(label)
                    by_seed = arm.rates(study.metric, whole).by_seed[:, 0]
                    scores[label].append(study.metric.quality(by_seed))
        if len(data) > 1 and arms:
            rankings.append(_ranking(side, [study for study in studies if study.data_shown in data], scores))
    return rankings


def common_arms(studies: Sequence[Study]) -> list[str]:
    """Labels of the arms that every study has, in the order of the first."""
    first, *others = studies
    return [arm.label for arm in first.arms if all(arm.label in [one.label for one in study.arms] for study in others)]


def _ranking(side: str, studies: Sequence[Study], scores: Mapping[str, Scores]) -> Ranking:
    improving, at_chance = (
        {arm: names for arm in scores if (names := tuple(one.data_shown for one in studies if arm in labels(one)))}
        for labels in (lambda one: one.improving, lambda one: one.at_chance)
    )
    marks = {IMPROVING: improving, AT_CHANCE: at_chance}
    standings = [
        Standing(
            arm=arm,
            shown=" ".join([arm, *(mark for mark, marked in marks.items() if arm in marked)]),
            iqm=estimate(lambda drawn: interquartile_mean(drawn[0]), [of_arm], counted=0.5),
            scores=tuple(of_arm),
        )
        for arm, of_arm in scores.items()
    ]
    improvements = {
        (arm, other): estimate(lambda drawn: probability_of_improvement(*drawn), [scores[arm], scores[other]])
        for arm, other in itertools.permutations(scores, 2)
    }
    standings.sort(key=lambda one: -one.iqm.value)
    return Ranking(
        side=side,
        data=tuple(one.data_shown for one in studies),
        standings=tuple(standings),
        improvements=improvements,
        improving=improving,
        at_chance=at_chance,
    )


def interquartile_mean(scores: Scores) -> Floats:
    """Mean of the middle half of all scores; ``scores`` has for each data set ``[..., runs]``.

    The lowest and the highest n / 4 of n scores are left out; a score that lies across a cut counts in part. So the
    value does not change when every score is duplicated, and the bootstrap's fewer draws estimate the same value as all
    runs. Cuts rounded to whole scores would shift it wherever n is not a multiple of four.
    """
    pooled = np.sort(np.concatenate(scores, axis=-1), axis=-1)
    n = pooled.shape[-1]
    cut = _CUT * n
    edges = np.clip(np.arange(n + 1), cut, n - cut)  # score i covers i to i + 1, less what is cut off
    return np.asarray(pooled @ np.diff(edges) / (n - 2 * cut))


def probability_of_improvement(scores: Scores, others: Scores) -> Floats:
    """How often a score beats one of ``others`` on the same data set, averaged over data sets.

    Both have for each data set ``[..., runs]``; the numbers of runs may differ.
    """
    of_data = []
    for own, its in zip(scores, others, strict=True):
        ahead = own[..., :, None] - its[..., None, :]
        of_data.append(((ahead > 0) + 0.5 * (ahead == 0)).mean(axis=(-2, -1)))
    return np.asarray(np.mean(of_data, axis=0))


def estimate(
    statistic: Callable[[Sequence[Scores]], Floats],
    arms: Sequence[Scores],
    *,
    counted: float = 1.0,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """A statistic of the scores of some arms, between 0 and 1, with its stratified bootstrap interval.

    ``low`` and ``high`` are nan where an arm has only one run on some data set, and where nothing varies.

    Args:
        statistic: takes the scores of the arms, for each data set ``[..., runs]``, and returns ``[...]``.
        arms: their scores.
        counted: share of the runs that the statistic uses, and so of the degrees of freedom.
        draws: of the bootstrap.
        seed: of the draws.
    """
    value = float(statistic(arms))
    fewest = min(len(runs) for scores in arms for runs in scores)
    if fewest < 2:
        return Estimate(value, np.nan, np.nan, fewest)
    generator = np.random.default_rng(seed)
    drawn = [[runs[generator.integers(0, len(runs), (draws, len(runs) - 1))] for runs in scores] for scores in arms]
    low, high = np.quantile(statistic(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if not low < high:
        return Estimate(value, np.nan, np.nan, fewest)
    freedom = math.ceil(counted * min(sum(len(runs) - 1 for runs in scores) for scores in arms))
    wider = float(stdtrit(freedom, (1 + LEVEL) / 2) / ndtri((1 + LEVEL) / 2))
    below, above = max(value - float(low), 0.0), max(float(high) - value, 0.0)
    return Estimate(value, value - wider * below, value + wider * above, fewest).clipped(0.0, 1.0)
