"""The findings of a study in sentences, the same in the terminal, on the page and in report.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from attnspan.analysis.comparison import Difference
from attnspan.analysis.lengths.axis import LengthAxis
from attnspan.analysis.lengths.bins import joined
from attnspan.analysis.lengths.regions import Region
from attnspan.analysis.lengths.spans import ArmSpan
from attnspan.analysis.lengths.training_range import EXTRAPOLATION, IN_RANGE
from attnspan.analysis.lengths.words import counted, plural
from attnspan.analysis.seed_groups import Groups, group_means
from attnspan.analysis.statistics import Estimate
from attnspan.analysis.study import Point, Study
from attnspan.data.corpora.base import SIDES
from attnspan.reporting.formatting import number, span_interval


def _replicates(seeds: int) -> str:
    return "one seed, so the interval covers the draw of examples only" if seeds == 1 else f"{seeds} seeds"


def findings(study: Study) -> list[str]:
    """The findings, the main one first: a sentence that can be read aloud, then what it rests on, then the others."""
    headline, *rests_on = _longest_bin(study, IN_RANGE) or _longest_bin(study, EXTRAPOLATION)
    beyond = _longest_bin(study, EXTRAPOLATION) if _longest_bin(study, IN_RANGE) else []
    sentences = (headline, " ".join(rests_on), _growth(study), " ".join(beyond), _spans(study))
    return [sentence for sentence in sentences if sentence]


def _last_bin(side: str, points: Iterable[Point | Difference]) -> str | None:
    labels = [point.region.label for point in points if point.region.side == side and not point.region.total]
    return labels[-1] if labels else None


def _best_at(study: Study, side: str) -> Difference | None:
    """The comparison with the largest advantage in the longest bin of ``side``."""
    last = _last_bin(side, study.differences)
    in_bin = [one for one in study.differences if one.region.label == last and one.region.side == side]
    return max(in_bin, key=lambda one: one.advantage.value, default=None)


def _longest_bin(study: Study, side: str) -> list[str]:
    """The values of the metric in the longest bin of ``side``, of the best arm and its baseline, or of the only arm.

    First a sentence of few numbers, then those on which it rests. Empty where that side has no examples.
    """
    best = _best_at(study, side)
    if best is None:
        last = _last_bin(side, study.curve)
        return [] if last is None else _only_arm(study, side, last)
    if groups := study.groups_in(side, best.arm, best.baseline):
        return [_in_groups(study, best, groups)]
    # With the seeds that both have, like the difference, which must be the difference of these two numbers.
    own, its = (
        float(study.arm(label).rates(study.metric, [best.region], best.seeds).by_seed.mean())
        for label in (best.arm, best.baseline)
    )
    advantage = best.advantage
    sure = _excludes_zero(advantage)
    unsure = "" if sure else ", a difference that may be chance"
    headline = f"{_says(study, best.arm, own, best.region)} where {_which_has(study, best.baseline, its)}{unsure}."
    verdict = "" if sure else " The interval includes 0, so this does not tell them apart."
    several = sum(one.region.label == best.region.label and one.region.side == side for one in study.differences)
    chosen = (
        f" {best.arm} is named because it is the best of {several} arms there; the interval does not allow for that."
        if several > 1
        else ""
    )
    return [
        headline,
        f"That is {_by_how_much(study, advantage.value)}, with a 95% interval of the difference of "
        f"{_range(advantage, study)} ({_replicates(advantage.seeds)}, {counted(best.region.examples, 'example')})."
        f"{verdict}{chosen}{_learned(study, [best.arm, best.baseline])}",
    ]


def _only_arm(study: Study, side: str, label: str) -> list[str]:
    """The same for a study of one arm."""
    arm = study.arms[0].label
    points = [point for point in study.points if point.arm == arm and not point.region.total]
    points = [point for point in points if study.metric.name in point.metrics]
    (point,) = (point for point in points if (point.region.label, point.region.side) == (label, side))
    rate = point.metrics[study.metric.name]
    return [
        f"{_says(study, arm, rate.value, point.region).rstrip(',')}.",
        f"The 95% interval is {_range(rate, study)} ({_replicates(rate.seeds)}).",
    ]


def _says(study: Study, arm: str, value: float, region: Region) -> str:
    """The value of an arm on the examples of a bin, as the beginning of a sentence."""
    metric, shown = study.metric, number(value, study.metric.digits)
    if metric.counts:
        return f"On {_examples(study, region)}, {_named(study, arm)} makes {shown} {metric.counts}"
    return f"By {metric.noun}, {_named(study, arm)} has {shown} on {_examples(study, region)},"


def _which_has(study: Study, arm: str, value: float) -> str:
    does = "makes" if study.metric.counts else "has"
    return f"{_named(study, arm)} {does} {number(value, study.metric.digits)}"


def _by_how_much(study: Study, advantage: float) -> str:
    if not advantage:
        return "as many" if study.metric.counts else "the same"
    size = number(abs(advantage), study.metric.digits)
    if study.metric.counts:
        return f"{size} {'fewer' if advantage > 0 else 'more'}"
    return f"{'better' if advantage > 0 else 'worse'} by {size}"


def _in_groups(study: Study, best: Difference, groups: Groups) -> str:
    """A sentence on a difference without an interval: some seeds learn, others fail."""
    whose = best.arm if study.groups_in(best.region.side, best.arm) else best.baseline
    each = joined(
        f"{number(mean, study.metric.digits)} with seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        for seeds, mean in group_means(best.by_seed, best.seeds, groups)
    )
    return (
        f"On {_examples(study, best.region)}, the advantage of {best.arm} over {best.baseline} depends on the seed: "
        f"{each}. The seeds of {whose} fall into two groups, so no interval is given."
        f"{_learned(study, [best.arm, best.baseline])}"
    )


def _named(study: Study, arm: str) -> str:
    """The arm; one that had not learned all it can is never named in a headline without that."""
    if arm in study.at_chance:
        return f"{arm} (training failed)"
    return f"{arm} (still improving)" if arm in study.improving else arm


def _learned(study: Study, arms: Sequence[str]) -> str:
    """Sentences on those of the arms that had not learned all they can; empty if all had."""
    failed = [arm for arm in arms if arm in study.at_chance]
    chance = (
        f" But training failed for {joined(failed)}: at its end the loss was no lower than that of equal "
        "probabilities for all symbols."
        if failed
        else ""
    )
    names = [arm for arm in arms if arm in study.improving]
    if not names:
        return chance
    which = "was" if len(names) == 1 else "were"
    return chance + (
        f" But {joined(names)} {which} still improving when the cap on updates ended training, so this compares the "
        "arms at that cost, not at their best."
    )


def _growth(study: Study) -> str:
    best = _best_at(study, IN_RANGE)
    trend = next((t for t in study.trends if best and t.arm == best.arm and t.side == IN_RANGE), None)
    if best is None or trend is None or math.isnan(trend.growth.value):
        return ""
    if study.groups_in(IN_RANGE, best.arm, best.baseline):
        return ""
    does = "grows" if trend.growth.value >= 0 else "shrinks"
    unsure = "" if _excludes_zero(trend.growth) else ", which includes zero"
    of, unit = ("", f" {study.metric.counts}") if study.metric.counts else (f" in {study.metric.noun}", "")
    return (
        f"Over the lengths seen in training, the advantage of {trend.arm} over {trend.baseline}{of} {does} by "
        f"{number(abs(trend.growth.value), study.metric.digits)}{unit} with every {_more(study.axis)} "
        f"(95% interval of the growth {_range(trend.growth, study)}{unsure})."
    )


def _spans(study: Study) -> str:
    if not study.spans:
        return ""
    each = joined(f"{_span(study, one)} for {one.arm} ({_interval(study, one)})" for one in study.spans)
    return (
        f"The span, up to which an arm keeps {study.keep:.0%} of the quality that the best arm has on the shortest "
        f"{study.axis.side}s, is {each}."
    )


def _span(study: Study, one: ArmSpan) -> str:
    unit = study.axis.unit if study.axis.is_multiple else plural(one.span.length, "token")
    return f"{one.span.length} {unit}"


def _examples(study: Study, region: Region) -> str:
    """The examples of a bin, and what training saw, as in ``sources of 51–60 tokens, the longest seen in training``."""
    axis, examples = region.axis, region.axis.examples(region.label)
    (other,) = (side for side in SIDES if side != axis.side)
    if region.side == IN_RANGE:
        seen = (
            "the longest seen in training"
            if _reaches_training(study, region)
            else "within the lengths seen in training"
        )
    elif _share_beyond(study, region, axis.side) == 1:
        seen = "longer than any seen in training"
    elif _share_beyond(study, region, other) == 1:
        return f"{examples}, whose {other}s are longer than any seen in training"
    else:
        return f"{examples}, which are, or whose {other}s are, longer than any seen in training"
    return examples if axis.is_multiple else f"{examples}, {seen}"  # a multiple says so itself


def _reaches_training(study: Study, region: Region) -> bool:
    """Whether a bin has an example as long as the longest that an arm was trained on."""
    lengths = study.test_set[f"{region.axis.side}_length"].to_numpy()[region.inside]
    known = [longest for one in study.ranges if (longest := one.longest(region.axis.side)) is not None]
    return bool(known) and int(lengths.max()) >= min(known)


def _share_beyond(study: Study, region: Region, side: str) -> float:
    """The share of the examples of a bin that are longer, on ``side``, than what every arm has seen."""
    known = [longest for one in study.ranges if (longest := one.longest(side)) is not None]
    lengths = study.test_set[f"{side}_length"].to_numpy()[region.inside]
    return float((lengths > min(known)).mean()) if known else 0.0


def _more(axis: LengthAxis) -> str:
    """Of a slope, per what."""
    return f"further multiple of the longest {axis.side}" if axis.is_multiple else f"{axis.per} more {axis.unit}"


def _interval(study: Study, one: ArmSpan) -> str:
    return "seeds in two groups" if study.groups_in("", one.arm) else span_interval(one.span)


def _excludes_zero(estimate: Estimate) -> bool:
    return estimate.low > 0 or estimate.high < 0 or math.isnan(estimate.low)


def _range(estimate: Estimate, study: Study) -> str:
    if math.isnan(estimate.low):
        return "not known, because nothing varied"
    digits = study.metric.digits
    return f"{number(estimate.low, digits)} to {number(estimate.high, digits)}"
