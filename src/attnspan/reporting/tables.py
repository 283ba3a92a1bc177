"""The report's tables, as text, ready for the terminal, HTML, Markdown and LaTeX."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from attnspan.analysis.study import EXTRAPOLATION, IN_RANGE, Arm, Point, Region, Study
from attnspan.analysis.text_metrics import PERPLEXITIES, TEXT_METRICS
from attnspan.analysis.time_to_loss import common_loss, reached, validations
from attnspan.reporting.formatting import NONE, duration, number, p_value, span_interval, with_interval
from attnspan.reporting.wording import METRIC_NAMES


@dataclass(frozen=True)
class Row:
    """One line of a table. ``heading`` rows have one cell, ``total`` rows sum up what stands above."""

    cells: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Text in rows and columns; the first ``labels`` columns name the row, the others are numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    labels: int = 1


def by_length(study: Study, metric: str) -> Table:
    """One metric, length bins x the arms of which it is known."""
    points = [point for point in (*study.curve, *study.attention, *study.translation) if metric in point.metrics]
    digits = 1 if metric in TEXT_METRICS else 2 if metric in PERPLEXITIES else 3
    style: Callable[[Point], str] = lambda point: with_interval(point.metrics[metric], digits)  # noqa: E731
    return _by_length(study, points, f"{METRIC_NAMES[metric]} by source length, with 95% intervals", style)


def _by_length(study: Study, points: Sequence[Point], caption: str, cell: Callable[[Point], str]) -> Table:
    arms = list(dict.fromkeys(point.arm for point in points))
    cells = {(point.arm, _key(point.region)): cell(point) for point in points}
    rows = []
    for heading, regions in _sections(study):
        rows.append(Row((heading,), "heading"))
        for region in regions:
            label = _total_label(study, region) if region.total else region.label
            values = [cells.get((arm, _key(region)), NONE) for arm in arms]
            rows.append(Row((label, f"{region.examples:,}", *values), "total" if region.total else ""))
    return Table(caption, ("source tokens", "examples", *arms), tuple(rows), labels=1)


def _heading(side: str) -> str:
    return {IN_RANGE: "in range: lengths seen in training", EXTRAPOLATION: "extrapolation: longer than any seen"}[side]


def _sections(study: Study) -> list[tuple[str, list[Region]]]:
    """Regions under headings that say who saw sources so long in training; the totals last.

    Where arms were trained up to different lengths, a bin may be in range for one and not for the other.
    """
    walls = sorted({arm.training_max for arm in study.arms})
    each = [region for wall in walls for region in study.regions(wall)]
    if len(walls) == 1:
        sections = [(_heading(side), [region for region in each if region.side == side]) for side in _SIDES]
    else:
        bins = [region for region in study.regions(walls[0]) if not region.total]
        sections = [("in range of every arm", [region for region in bins if region.up_to <= walls[0]])]
        for k, wall in enumerate(walls, start=1):
            longest = walls[k] if k < len(walls) else math.inf
            trained = f"{', '.join(map(str, walls[: k - 1]))} or {wall}" if k > 1 else str(wall)
            heading = f"longer than any seen by arms trained up to {trained} tokens"
            inside = [region for region in bins if wall < region.up_to <= longest]
            sections.append((heading if k < len(walls) else "longer than any arm has seen", inside))
        totals = {_key(region): region for region in each if region.total}
        sections.append(("each arm over lengths that it saw, and over longer ones", list(totals.values())))
    return [(heading, regions) for heading, regions in sections if regions]


_SIDES = (IN_RANGE, EXTRAPOLATION)


def _total_label(study: Study, region: Region) -> str:
    """What a table calls a whole side; with its lengths where sides differ from arm to arm."""
    alike = len({arm.training_max for arm in study.arms}) == 1
    return f"all {region.side}" + ("" if alike else f", {region.above + 1}–{region.up_to}")


def _key(region: Region) -> tuple[bool, int, int]:
    """What makes a region the same for two arms; with other training lengths an arm has other totals."""
    return region.total, region.above, region.up_to


def differences(study: Study) -> Table:
    """The advantage of every compared arm, by length."""
    rows = []
    for arm, baseline in study.compared.items():
        of_arm = [one for one in study.differences if one.arm == arm]
        if of_arm:
            rows.append(Row((f"{arm} over {baseline}",), "heading"))
        for side in (IN_RANGE, EXTRAPOLATION):
            for one in of_arm:
                if one.region.side == side:
                    label = f"all {side}" if one.region.total else one.region.label
                    cells = (
                        label,
                        f"{one.region.examples:,}",
                        f"{len(one.seeds)}",
                        with_interval(one.advantage),
                        p_value(one.p_holm),
                        p_value(one.p_models_holm),
                    )
                    rows.append(Row(cells, "total" if one.region.total else ""))
    columns = ("source tokens", "examples", "seeds", "advantage [95% interval]", "p (Holm)", "p, models (Holm)")
    return Table("Advantage: error rate of the baseline minus error rate of the arm", columns, tuple(rows))


def spans(study: Study) -> Table:
    """The span of each arm."""
    rows = [
        Row((one.arm, str(one.span.length), span_interval(one.span), number(one.span.threshold), f"{len(one.seeds)}"))
        for one in study.spans
    ]
    caption = f"Span: source tokens up to which an arm keeps {study.keep:.0%} of the best arm's quality on the shortest"
    return Table(caption, ("arm", "span", "95% interval", "quality to keep", "seeds"), tuple(rows))


def trends(study: Study) -> Table:
    """Slope, drop and interaction of each arm."""
    rows = []
    for side in (IN_RANGE, EXTRAPOLATION):
        of_side = [one for one in study.trends if one.side == side]
        if of_side:
            rows.append(Row((_heading(side),), "heading"))
        for one in of_side:
            growth = with_interval(one.growth)
            cells = (one.arm, with_interval(one.error_factor, 2), with_interval(one.relative_drop, 2), growth)
            rows.append(Row(cells))
    columns = (
        "arm",
        "error rate, factor per 10 tokens",
        "share of quality lost, shortest to longest bin",
        "growth of the advantage per 10 tokens",
    )
    return Table("Change with source length, with 95% intervals", columns, tuple(rows))


def degenerate(study: Study) -> Table:
    """Empty, truncated and repeating output, in percent of the test examples."""
    kinds = ("empty", "truncated", "repeating")
    return _by_length(
        study,
        study.curve,
        "Empty / cut at the length limit / repeating output, percent of the test examples",
        lambda point: " / ".join(number(100 * point.metrics[kind].value, 1) for kind in kinds),
    )


def cost(study: Study) -> Table:
    """What each arm costs, averaged over its runs."""
    rows = []
    for arm in study.arms:
        rows.append(
            Row(
                (
                    arm.label,
                    _mean(arm, "parameters", lambda x: f"{x:,.0f}"),
                    _mean(arm, "updates", lambda x: f"{x:,.0f}"),
                    _mean(arm, "tokens_per_second", lambda x: f"{x:,.0f}"),
                    _mean(arm, "decode_tokens_per_second", lambda x: f"{x:,.0f}"),
                    _mean(arm, "train_seconds", duration),
                    _mean(arm, "wall_seconds", duration),
                    _mean(arm, "peak_memory_mb", lambda x: f"{x:,.0f}"),
                )
            )
        )
    columns = (
        "arm", "parameters", "updates", "training tokens/s", "decoding tokens/s", "training time", "wall time",
        "peak memory (MB)",
    )  # fmt: skip
    return Table("Cost of a run, mean over the runs of an arm", columns, tuple(rows))


def pace(study: Study) -> Table:
    """How long each arm trains to one validation loss; no rows where no run says what its losses were."""
    runs = study.collection.runs
    loss = common_loss(runs) if study.loss is None else study.loss
    if loss is None or not any(map(validations, runs)):
        return Table("", (), ())
    rows, times = [], dict[str, float | None]()
    for arm in study.arms:
        found = [reached(run, loss) for run in arm.runs]
        there = [one for one in found if one is not None]
        updates = sorted({one.updates for one in there})
        seconds = [one.seconds for one in there if one.seconds is not None]
        times[arm.label] = mine = statistics.fmean(seconds) if len(seconds) == len(found) else None
        baseline = times[study.arms[0].label]
        rows.append(
            Row(
                (
                    arm.label,
                    f"{len(there)} of {len(found)}",
                    "–".join(f"{n:,}" for n in dict.fromkeys((updates[0], updates[-1]))) if there else "not reached",
                    duration(statistics.fmean(seconds)) if seconds else NONE if there else "not reached",
                    number(mine / baseline, 2) if mine and baseline else NONE,
                )
            )
        )
    caption = (
        f"Training until a validation first shows a loss of {number(loss)} nats per token or less; "
        "the time is the mean over the runs that come there"
    )
    columns = ("arm", "runs that come there", "updates", "training time", f"times that of {study.arms[0].label}")
    return Table(caption, columns, tuple(rows))


def _mean(arm: Arm, key: str, style: Callable[[float], str]) -> str:
    values = [run.summary[key] for run in arm.runs if run.summary.get(key) is not None]
    return style(statistics.fmean(values)) if values else NONE


def degradation_blocks(study: Study) -> list[Table]:
    """The terminal's form of the main table: arms x length bins, in blocks that fit 100 columns."""
    metric = "error_rate"
    points = {(point.arm, _key(point.region)): point.metrics[metric] for point in study.curve}
    blocks = []
    for heading, regions in _sections(study):
        for start in range(0, len(regions), 9):
            some = regions[start : start + 9]
            columns = ("arm", *(_column(region, study) for region in some))
            counts = Row(("examples", *(f"{region.examples:,}" for region in some)), "total")
            rows = [
                Row((arm.label, *(_short(points.get((arm.label, _key(region)))) for region in some)))
                for arm in study.arms
            ]
            blocks.append(Table(f"Error rate by source length, {heading}", columns, (counts, *rows)))
    return blocks


def _column(region: Region, study: Study) -> str:
    """A region over its numbers, in few letters."""
    if not region.total:
        return region.label
    _, _, lengths = _total_label(study, region).partition(", ")
    return lengths or "all"


def _short(estimate: Any) -> str:
    """An estimate over half the width of its interval, in two lines."""
    if estimate is None:
        return NONE
    half = max(estimate.high - estimate.value, estimate.value - estimate.low)
    return number(estimate.value) if math.isnan(half) else f"{number(estimate.value)}\n±{number(half)}"


def points_frame(points: Sequence[Point]) -> pd.DataFrame:
    """curve.csv, attention.csv and text.csv: one row an arm and region."""
    rows = []
    for point in points:
        row = {"arm": point.arm, **_region_columns(point.region), "seeds": len(point.seeds)}
        for metric, estimate in point.metrics.items():
            row |= {metric: estimate.value, f"{metric}_low": estimate.low, f"{metric}_high": estimate.high}
        rows.append(row)
    return pd.DataFrame(rows)


def seeds_frame(points: Sequence[Point]) -> pd.DataFrame:
    """seeds.csv, attention_seeds.csv and text_seeds.csv: one row an arm, region and seed, without intervals."""
    rows = []
    for point in points:
        for s, seed in enumerate(point.seeds):
            values = {metric: by_seed[s] for metric, by_seed in point.by_seed.items()}
            rows.append({"arm": point.arm, "seed": seed, **_region_columns(point.region), **values})
    return pd.DataFrame(rows)


def differences_frame(study: Study) -> pd.DataFrame:
    """differences.csv: one row a compared arm and region."""
    rows = [
        {
            "arm": one.arm,
            "baseline": one.baseline,
            **_region_columns(one.region),
            "seeds": len(one.seeds),
            "advantage": one.advantage.value,
            "low": one.advantage.low,
            "high": one.advantage.high,
            "p": one.p,
            "p_holm": one.p_holm,
            "p_models": one.p_models,
            "p_models_holm": one.p_models_holm,
        }
        for one in study.differences
    ]
    columns = ["arm", "baseline", *_REGION, "seeds", "advantage", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, "p", "p_holm", "p_models", "p_models_holm"])


def spans_frame(study: Study) -> pd.DataFrame:
    """spans.csv: one row an arm; a censored length stands at the limit, with ``>`` or ``<`` beside it."""
    rows = [
        {
            "arm": one.arm,
            "span": one.span.length.tokens,
            "span_censored": one.span.length.censored,
            "low": one.span.low.tokens,
            "low_censored": one.span.low.censored,
            "high": one.span.high.tokens,
            "high_censored": one.span.high.censored,
            "keep": study.keep,
            "threshold": one.span.threshold,
            "threshold_arm": one.best,
            "seeds": len(one.seeds),
        }
        for one in study.spans
    ]
    return pd.DataFrame(rows)


def trends_frame(study: Study) -> pd.DataFrame:
    """trends.csv: one row an arm and side."""
    rows = []
    for one in study.trends:
        row: dict[str, Any] = {"arm": one.arm, "baseline": one.baseline, "side": one.side, "bins": one.bins}
        row["seeds"] = len(one.seeds)
        for name in ("error_factor", "relative_drop", "growth"):
            estimate = getattr(one, name)
            row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        rows.append(row)
    return pd.DataFrame(rows)


_REGION = ("lengths", "side", "total", "above", "up_to", "mean_length", "examples")


def _region_columns(region: Region) -> dict[str, Any]:
    values: Sequence[Any] = (
        region.label, region.side, region.total, region.above, region.up_to, region.mean_length, region.examples,
    )  # fmt: skip
    return dict(zip(_REGION, values, strict=True))
