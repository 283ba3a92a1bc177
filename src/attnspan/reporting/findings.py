"""The findings of a study in sentences, the same in the terminal, on the page and in report.md."""

from __future__ import annotations

import math
from collections.abc import Iterable

from attnspan.analysis.bins import EXTRAPOLATION, IN_RANGE, joined
from attnspan.analysis.comparison import Difference
from attnspan.analysis.metrics import ERROR_RATE
from attnspan.analysis.statistics import Estimate
from attnspan.analysis.study import Point, Study
from attnspan.reporting.formatting import number, span_interval


def _replicates(seeds: int) -> str:
    return "one seed, so the interval covers the draw of examples only" if seeds == 1 else f"{seeds} seeds"


def findings(study: Study) -> list[str]:
    """One sentence per finding, with its numbers and interval; the main finding first."""
    sentences = (_longest_bin(study, IN_RANGE), _growth(study), _longest_bin(study, EXTRAPOLATION), _spans(study))
    return [sentence for sentence in sentences if sentence]


def _last_bin(study: Study, side: str, points: Iterable[Point | Difference]) -> str | None:
    labels = [point.region.label for point in points if point.region.side == side and not point.region.total]
    return labels[-1] if labels else None


def _best_at(study: Study, side: str) -> Difference | None:
    """The comparison with the largest advantage in the longest bin of ``side``."""
    last = _last_bin(study, side, study.differences)
    in_bin = [one for one in study.differences if one.region.label == last and one.region.side == side]
    return max(in_bin, key=lambda one: one.advantage.value, default=None)


def _longest_bin(study: Study, side: str) -> str:
    """The error rates in the longest bin of ``side``: of the best arm and its baseline, or of the only arm."""
    which = "the longest seen in training" if side == IN_RANGE else "longer than any seen in training"
    best = _best_at(study, side)
    if best is None:
        last = _last_bin(study, side, study.curve)
        if last is None:
            return ""
        arm = study.arms[0].label
        points = [point for point in study.curve if point.arm == arm and not point.region.total]
        (rate,) = (point.metrics[ERROR_RATE.name] for point in points if point.region.label == last)
        return (
            f"On sources of {last} tokens, {which}, {arm} makes {number(rate.value)} errors per reference token "
            f"(95% interval {_range(rate)}; {_replicates(rate.seeds)})."
        )
    # With the seeds that both have, like the difference, which must be the difference of these two numbers.
    own, its = (
        float(study.arm(label).error_rates([best.region], best.seeds).by_seed.mean())
        for label in (best.arm, best.baseline)
    )
    advantage = best.advantage
    several = sum(one.region.label == best.region.label and one.region.side == side for one in study.differences)
    chosen = f"; it is the best of {several} arms there, which its interval ignores" if several > 1 else ""
    more = "fewer" if advantage.value > 0 else "more"
    size = f"{number(abs(advantage.value))} {more}" if advantage.value else "as many"
    verdict = "" if _excludes_zero(advantage) else "; the interval includes 0, so this does not tell them apart"
    return (
        f"On sources of {best.region.label} tokens, {which}, {best.arm} makes {number(own)} errors per reference token "
        f"and {best.baseline} {number(its)}: {size} (95% interval of the difference {_range(advantage)}; "
        f"{_replicates(advantage.seeds)}, {best.region.examples} examples{verdict}{chosen})."
    )


def _growth(study: Study) -> str:
    best = _best_at(study, IN_RANGE)
    trend = next((t for t in study.trends if best and t.arm == best.arm and t.side == IN_RANGE), None)
    if best is None or trend is None or math.isnan(trend.growth.value):
        return ""
    does = "grows" if trend.growth.value >= 0 else "shrinks"
    unsure = "" if _excludes_zero(trend.growth) else ", which includes zero"
    return (
        f"Over the lengths seen in training, the advantage of {trend.arm} over {trend.baseline} {does} by "
        f"{number(abs(trend.growth.value))} errors per reference token with every 10 more source tokens "
        f"(95% interval of the growth {_range(trend.growth)}{unsure})."
    )


def _spans(study: Study) -> str:
    if not study.spans:
        return ""
    each = joined(f"{one.span.length} tokens for {one.arm} ({span_interval(one.span)})" for one in study.spans)
    return (
        f"The span, up to which an arm keeps {study.keep:.0%} of the quality that the best arm has on the shortest "
        f"sources, is {each}."
    )


def _excludes_zero(estimate: Estimate) -> bool:
    return estimate.low > 0 or estimate.high < 0 or math.isnan(estimate.low)


def _range(estimate: Estimate) -> str:
    if math.isnan(estimate.low):
        return "not known, because nothing varied"
    return f"{number(estimate.low)} to {number(estimate.high)}"
