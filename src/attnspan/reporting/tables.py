"""The tables of a report as text, for the terminal, HTML, Markdown and LaTeX."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from attnspan.analysis.arms import Arm
from attnspan.analysis.lengths.regions import Part, Region
from attnspan.analysis.lengths.training_range import IN_RANGE, SIDES
from attnspan.analysis.metrics import DEGENERATE, ERROR_RATE, Metric, RecordMetric, metrics_in
from attnspan.analysis.statistics import Estimate
from attnspan.analysis.study import Point, Study
from attnspan.reporting.formatting import NONE, duration, in_groups, number, p_value, span_interval, with_interval


@dataclass(frozen=True)
class Row:
    """One row of a table. ``heading`` rows have one cell, ``total`` rows summarise the rows above."""

    cells: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Rows and columns of text; the first ``labels`` columns name the row, the others are numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    labels: int = 1
    interval: str = ""
    """Of what its intervals tell, as in ``over seeds and test examples``."""


def of_intervals(study: Study) -> str:
    """Of what the intervals of a study tell."""
    seeds = {len(arm.seeds) == 1 for arm in study.arms}
    if seeds == {True}:
        return "over test examples, of one seed"
    return "over seeds and test examples" + (", where an arm has several seeds" if True in seeds else "")


def by_length(study: Study, metric: Metric) -> Table:
    """One metric, length bins x the arms for which it is known."""
    points = [point for point in study.points if metric.name in point.metrics]
    caption = f"{metric.title} by {study.axis.noun}, with 95% intervals"

    def cell(point: Point) -> str:
        if groups := study.groups_in(point.region.side, point.arm):
            return in_groups(point.by_seed[metric.name], point.seeds, groups, metric.digits)
        return with_interval(point.metrics[metric.name], metric.digits)

    reach = metric == ERROR_RATE and any_unreachable(study)
    return _by_length(study, points, caption, cell, reach=reach)


def any_unreachable(study: Study) -> bool:
    """Whether a reference is longer than the decoding limit of an arm lets an output be."""
    return any(arm.unreachable and arm.unreachable.count for arm in study.arms)


def _unreachable(study: Study, region: Region) -> str:
    """How many references of ``region`` no output can equal; a range where the limits of arms differ."""
    known = [arm.unreachable for arm in study.arms if arm.unreachable]
    counts = sorted({int((region.inside & one.inside).sum()) for one in known})
    return "–".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))


def _by_length(
    study: Study, points: Sequence[Point], caption: str, cell: Callable[[Point], str], *, reach: bool = False
) -> Table:
    """Length bins x arms; with ``reach``, beside the number of references that no output can equal."""
    arms = list(dict.fromkeys(point.arm for point in points))
    cells = {(point.arm, _key(point.region)): cell(point) for point in points}
    rows = []
    for heading, regions in _sections(study):
        rows.append(Row((heading,), "heading"))
        for region in regions:
            label = _total_label(study, region) if region.total else region.label
            counts = (f"{region.examples:,}", *([_unreachable(study, region)] if reach else []))
            values = [cells.get((arm, _key(region)), NONE) for arm in arms]
            rows.append(Row((label, *counts, *values), "total" if region.total else ""))
    columns = (study.axis.unit, "examples", *(["out of reach"] if reach else []), *map(study.shown, arms))
    return Table(caption, columns, tuple(rows), interval=of_intervals(study))


def _heading(study: Study, side: str) -> str:
    if side == IN_RANGE:
        return "in range: lengths seen in training"
    judged = "source or target" if all(one.target is not None for one in study.ranges) else "source"
    return f"extrapolation: {judged} longer than any seen"


def _sections(study: Study) -> list[tuple[str, list[Region]]]:
    """Regions under headings that say which arms saw such lengths in training; the totals last.

    Where arms were trained up to different lengths, a bin may be in range for one and not for another.
    """
    if len(study.ranges) == 1:
        each = study.regions(study.arms[0])
        sections = [(_heading(study, side), [region for region in each if region.side == side]) for side in SIDES]
    else:
        parts = study.partition.parts
        sections = [(_heading_of_part(study, part), study.partition.in_part(part, "")) for part in parts]
        totals = {_key(region): region for arm in study.arms for region in study.regions(arm) if region.total}
        sections.append(("each arm over lengths that it saw, and over longer ones", list(totals.values())))
    return [(heading, regions) for heading, regions in sections if regions]


def _heading_of_part(study: Study, part: Part) -> str:
    """Which arms saw examples as long as those of ``part``."""
    if not part.exceeded:
        return "in range of every arm"
    if len(part.exceeded) == len(study.ranges):
        return "longer than any arm has seen"
    exceeded = [one for one in study.ranges if one in part.exceeded]
    return f"longer than any seen by arms trained up to {study.trained_up_to(exceeded)}"


def _total_label(study: Study, region: Region) -> str:
    """The label of a whole side, with its lengths where they differ between arms."""
    return f"all {region.side}" + ("" if len(study.ranges) == 1 else f", {_column(region, study)}")


def _key(region: Region) -> tuple[bool, bytes]:
    """Equal for the same examples; totals differ between arms with different training lengths."""
    return region.total, region.inside.tobytes()


def differences(study: Study) -> Table:
    """The advantage of every compared arm, by length."""
    rows = []
    for arm, baseline in study.compared.items():
        of_arm = [one for side in SIDES for one in study.differences if one.arm == arm and one.region.side == side]
        if of_arm:
            rows.append(Row((f"{study.shown(arm)} over {study.shown(baseline)}",), "heading"))
        for one in of_arm:
            label = f"all {one.region.side}" if one.region.total else one.region.label
            groups = study.groups_in(one.region.side, one.arm, one.baseline)
            p = NONE if groups else p_value(one.p_holm)
            digits = study.metric.digits
            advantage = (
                in_groups(one.by_seed, one.seeds, groups, digits) if groups else with_interval(one.advantage, digits)
            )
            numbers = (advantage, p, p_value(one.p_models_holm))
            cells = (label, f"{one.region.examples:,}", f"{len(one.seeds)}", *numbers)
            rows.append(Row(cells, "total" if one.region.total else ""))
    columns = (study.axis.unit, "examples", "seeds", "advantage [95% interval]", "p (Holm)", "p, models (Holm)")
    return Table(f"Advantage: {advantage_in_words(study)}", columns, tuple(rows), interval=of_intervals(study))


def advantage_in_words(study: Study) -> str:
    """What is subtracted from what, so that the advantage of the better arm is above zero."""
    first, second = ("arm", "baseline") if study.metric.sign > 0 else ("baseline", "arm")
    return f"{study.metric.noun} of the {first} minus {study.metric.noun} of the {second}"


def spans(study: Study) -> Table:
    """The span of each arm."""
    rows = [
        Row(
            (
                study.shown(one.arm),
                str(one.span.length),
                NONE if study.groups_in("", one.arm) else span_interval(one.span),
                number(one.span.threshold),
                f"{len(one.seeds)}",
            )
        )
        for one in study.spans
    ]
    caption = (
        f"Span: {study.axis.noun} up to which an arm keeps {study.keep:.0%} of the best arm's quality on the shortest"
    )
    columns = ("arm", "span", "95% interval", "quality to keep", "seeds")
    return Table(caption, columns, tuple(rows), interval=of_intervals(study))


def trends(study: Study) -> Table:
    """Slope, drop and interaction of each arm."""
    rows, per = list[Row](), f"{study.axis.per} {study.axis.unit}"
    for side in SIDES:
        of_side = [one for one in study.trends if one.side == side]
        if of_side:
            rows.append(Row((_heading(study, side),), "heading"))
        for one in of_side:
            changes = (
                with_interval(one.factor, 2),
                with_interval(one.relative_drop, 2),
                with_interval(one.growth, study.metric.digits),
            )
            rows.append(Row((study.shown(one.arm), *changes)))
    columns = (
        "arm", f"{study.metric.noun}, factor per {per}", "share of quality lost, shortest to longest bin",
        f"growth of the advantage per {per}",
    )  # fmt: skip
    return Table(f"Change with {study.axis.noun}, with 95% intervals", columns, tuple(rows))


def degenerate(study: Study) -> Table:
    """Empty, truncated and repeating output, in percent of the test examples."""
    return _percentages(study, metrics_in(DEGENERATE), " output")


def stopping(study: Study) -> Table:
    """Outputs that are too short, too long, or ended at the longest trained length, in percent; no rows if unknown."""
    return _percentages(study, study.stopping_metrics)


def _percentages(study: Study, kinds: Sequence[RecordMetric], what: str = "") -> Table:
    """Kinds of outputs in percent of the test examples, all kinds of an arm in one cell."""
    if not kinds:
        return Table("", (), ())
    caption = f"{' / '.join(kind.label for kind in kinds).capitalize()}{what}, percent of the test examples"

    def cell(point: Point) -> str:
        known = (point.metrics.get(kind.name) for kind in kinds)
        return " / ".join(number(100 * one.value, 1) if one else NONE for one in known)

    return _by_length(study, study.curve, caption, cell)


def cost(study: Study) -> Table:
    """What each arm costs, averaged over its runs."""
    whole: Callable[[float], str] = "{:,.0f}".format
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "updates": ("updates", whole),
        "training tokens/s": ("tokens_per_second", whole),
        "decoding tokens/s": ("decode_tokens_per_second", whole),
        "training time": ("train_seconds", duration),
        "wall time": ("wall_seconds", duration),
        "peak memory (MB)": ("peak_memory_mb", whole),
    }
    rows = [
        Row(
            (
                study.shown(arm.label),
                _mean(arm, "parameters", whole),
                _state(arm),
                *(_mean(arm, key, style) for key, style in columns.values()),
            )
        )
        for arm in study.arms
    ]
    caption = (
        "Cost of a run, mean over the runs of an arm; the decoder's state in numbers, for S source and T output tokens"
    )
    return Table(caption, ("arm", "parameters", "decoder state", *columns), tuple(rows))


def _state(arm: Arm) -> str:
    """Numbers that decoding carries from step to step, as in "192 + 256 S"; all runs of an arm have the same."""
    units = {"fixed": "", "per_source_token": " S", "per_target_token": " T"}
    for run in arm.runs:
        if size := run.summary.get("decoder_state"):
            return " + ".join(f"{size[key]:,}{unit}" for key, unit in units.items() if size[key])
    return NONE


def _mean(arm: Arm, key: str, style: Callable[[float], str]) -> str:
    values = [run.summary[key] for run in arm.runs if run.summary.get(key) is not None]
    return style(statistics.fmean(values)) if values else NONE


def degradation_blocks(study: Study) -> list[Table]:
    """The main table for a terminal: arms x length bins, in blocks that fit into 100 columns."""
    metric = study.metric
    known = [point for point in study.points if metric.name in point.metrics]
    points = {(point.arm, _key(point.region)): point.metrics[metric.name] for point in known}
    blocks = []
    for heading, regions in _sections(study):
        for start in range(0, len(regions), 9):
            some = regions[start : start + 9]
            columns = ("arm", *(_column(region, study) for region in some))
            counts = Row(("examples", *(f"{region.examples:,}" for region in some)), "total")
            rows = [counts]
            if any_unreachable(study):
                rows.append(Row(("out of reach", *(_unreachable(study, region) for region in some)), "total"))
            for arm in study.arms:
                cells = (_short(points.get((arm.label, _key(region))), metric.digits) for region in some)
                rows.append(Row((study.shown(arm.label), *cells)))
            blocks.append(Table(f"{metric.title} by {study.axis.noun}, {heading}", columns, tuple(rows)))
    return blocks


def _column(region: Region, study: Study) -> str:
    """A short column heading for a region."""
    if not region.total:
        return region.label
    return "all" if len(study.ranges) == 1 else study.axis.label(region.above, region.up_to)


def _short(estimate: Estimate | None, digits: int) -> str:
    """An estimate above half the width of its interval, in two lines."""
    if estimate is None:
        return NONE
    half = max(estimate.high - estimate.value, estimate.value - estimate.low)
    value = number(estimate.value, digits)
    return value if math.isnan(half) else f"{value}\n±{number(half, digits)}"
