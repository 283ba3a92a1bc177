"""The plots of a report, with matplotlib: as files for papers, and as SVG in the colours of the page."""

from __future__ import annotations

import html
import io
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attnspan.analysis.comparison import Difference
from attnspan.analysis.lengths.regions import Region
from attnspan.analysis.lengths.training_range import EXTRAPOLATION
from attnspan.analysis.metrics import Metric
from attnspan.analysis.seed_groups import Groups, group_means
from attnspan.analysis.statistics import Estimate
from attnspan.analysis.study import AT_CHANCE, IMPROVING, Point, Study
from attnspan.reporting.formatting import in_groups, number, with_interval
from attnspan.reporting.pictures.form import CURVE, PAGE, Form, lay_out

INK, GRID, SHADE, GROUND = "#222222", "#d9d9d9", "#eceff3", "#ffffff"
RC: Any = {
    "font.size": 9, "font.family": "sans-serif", "legend.frameon": False, "svg.hashsalt": "attnspan",
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True, "grid.color": GRID, "grid.linewidth": 0.6,
}  # fmt: skip
"""The style of every figure."""

# Okabe and Ito (2008), safe for colour-blind readers; without black and yellow, which vanish on dark and on light.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Style:
    """The style of one arm in all plots: colour, marker and line."""

    colour: str
    marker: str
    line: Any
    name: str
    """``arm0`` and so on: the class by which the page shows and hides the arm."""

    def handle(self, label: str) -> Line2D:
        """Its line in a legend."""
        return Line2D([], [], color=self.colour, marker=self.marker, linestyle=self.line, label=label, markersize=4.5)


def styles(labels: Sequence[str]) -> dict[str, Style]:
    """A style for every arm, in order."""
    return {
        label: Style(_COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)], _LINES[i % len(_LINES)], f"arm{i}")
        for i, label in enumerate(labels)
    }


def arm_styles(study: Study) -> dict[str, Style]:
    """The styles of a study's arms, the same in every study of a report."""
    every = styles(study.legend)
    return {arm.label: every[arm.label] for arm in study.arms}


@dataclass(frozen=True)
class Tip:
    """A point whose value can be read on the page, by pointing at it or with the keys."""

    axes: Axes
    arm: str
    """``arm0`` and so on: of the :class:`Style`."""
    at: tuple[float, float]
    text: str

    def entry(self, figure: Figure) -> dict[str, Any]:
        """What the page needs: the text, and the place in percent of the figure from its upper left corner."""
        x, y = self.axes.transData.transform(self.at) / (figure.bbox.width, figure.bbox.height)
        return {"arm": self.arm, "text": self.text, "left": f"{100 * x:.2f}", "top": f"{100 - 100 * y:.2f}"}


@dataclass(frozen=True)
class Plot:
    """A figure with its texts."""

    figure: Figure
    text: str
    """Its text alternative."""
    tips: tuple[Tip, ...] = ()
    """Its points that can be read."""

    def save(self, path: Path) -> None:
        """Write the figure in the format that the file's name ends in."""
        with mpl.rc_context(RC):
            metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix, {})
            self.figure.savefig(path, dpi=300, metadata=metadata, facecolor="white")

    def inline(self, name: str) -> str:
        """SVG for a page, in the page's colours, with a class for each arm (``arm0`` ...); ``name`` is unique there."""
        stream = io.StringIO()
        with mpl.rc_context({**RC, "svg.fonttype": "none"}):
            self.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
        svg = re.sub(r"\A.*?(?=<svg)|<metadata>.*?</metadata>", "", stream.getvalue(), flags=re.DOTALL)
        head = rf'<svg \1 role="img" aria-label="{html.escape(self.text)}">'
        svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', head, svg, count=1)
        svg = re.sub(r'<g id="(arm\d+)">', r'<g class="\1">', svg)
        svg = re.sub(r' id="(?!m[0-9a-f]{10}"|p[0-9a-f]{10}")[^"]*"', "", svg)
        svg = re.sub(r'id="([mp][0-9a-f]{10})"', rf'id="{name}-\1"', svg)
        svg = re.sub(r'(url\(#|href="#)', rf"\1{name}-", svg)
        variables = {INK: "currentColor", GRID: "var(--grid)", SHADE: "var(--shade)", GROUND: "var(--ground)"}
        for colour, variable in variables.items():
            svg = svg.replace(colour, variable)
        return svg.strip()

    def panels(self) -> list[dict[str, Any]]:
        """The points that can be read, panel by panel, where the figure was last drawn."""
        found: dict[Axes, list[dict[str, Any]]] = {}
        for tip in self.tips:
            found.setdefault(tip.axes, []).append(tip.entry(self.figure))
        return [{"name": _name_of(axes), "points": points} for axes, points in found.items()]


def _name_of(axes: Axes) -> str:
    """What a panel shows, in words."""
    return axes.get_title(loc="left") or " by ".join(filter(None, [axes.get_ylabel(), axes.get_xlabel()]))


def draw_plots(study: Study, form: Form = PAGE) -> dict[str, Plot]:
    """The plots by name: advantage only where there is a baseline, attention only where an arm has attention."""
    drawn = [degradation, *([advantage] if study.differences else []), *([attention] if study.attention else [])]
    return {draw.__name__: draw(study, form) for draw in drawn}


def degradation(study: Study, form: Form = PAGE) -> Plot:
    """The study's metric against length: intervals as bands, seeds as dots, training range shaded, counts below."""
    with mpl.rc_context(RC):
        figure = Figure(figsize=form.size(*CURVE), layout="constrained")
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(6, 1))
        tips: list[Tip] = []
        _curves(axes, study, study.metric, tips)
        axes.set_ylabel(study.metric.label or study.metric.title)
        _lengths(axes, study, labels=not form.is_narrow)
        _counts(below, study, numbers=not form.is_narrow)
        return finished(figure, study, form, _curves_text(study, study.metric), tips)


def attention(study: Study, form: Form = PAGE) -> Plot:
    """Where teacher-forced attention looks against length, one panel for each known metric."""
    metrics = study.attention_metrics
    columns = 1 if form.is_narrow or len(metrics) < 4 else 2  # one column of many panels fills a printed page
    rows = -(-len(metrics) // columns)
    with mpl.rc_context(RC):
        figure = Figure(figsize=form.size(0.8 + 1.8 * rows, 0.8 + 1.7 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
        for axes in panels[len(metrics) :]:
            axes.set_visible(False)
        tips: list[Tip] = []
        for axes, metric in zip(panels, metrics, strict=False):
            _curves(axes, study, metric, tips)
            axes.set_ylabel(metric.label, fontsize=None if columns == 1 else 7.5)
            _lengths(axes, study, words=axes is panels[0], labels=columns == 1 and not form.is_narrow)
        for axes in panels[len(metrics) - columns : len(metrics)]:
            axes.set_xlabel(study.axis.title)
            axes.tick_params(labelbottom=True)
        text = ". ".join(_curves_text(study, metric) for metric in metrics)
        return finished(figure, study, form, text, tips, [point.arm for point in study.attention])


def _curves(axes: Axes, study: Study, metric: Metric, tips: list[Tip]) -> None:
    """One metric of every arm that has it; the tooltips of the points are appended to ``tips``."""
    top, bottom = 0.0, 0.0
    ends: list[tuple[Style, np.ndarray, np.ndarray]] = []
    for label, style in arm_styles(study).items():
        points = _known(study, label, metric)
        at = np.array([point.region.mean_length for point in points])
        estimates = [point.metrics[metric.name] for point in points]
        values = np.array([one.value for one in estimates])
        low = np.array([np.nan_to_num(one.low, nan=one.value) for one in estimates])
        high = np.array([np.nan_to_num(one.high, nan=one.value) for one in estimates])
        looks: Any = {"color": style.colour, "gid": style.name}
        grouped = [study.groups_in(point.region.side, label) for point in points]
        is_whole = np.array([groups is None for groups in grouped], dtype=bool)
        low, high = np.where(is_whole, low, values), np.where(is_whole, high, values)
        ends.append((style, at, high))
        for groups, chosen in itertools.groupby(range(len(points)), key=grouped.__getitem__):
            part = [*chosen]
            some, regions = [points[k] for k in part], [points[k].region for k in part]
            if groups:
                _groups(axes, some, metric, style, groups)
                continue
            for piece in _pieces(regions):
                where = np.array(part)[piece]
                axes.fill_between(at[where], low[where], high[where], alpha=0.16, linewidth=0, **looks)
            _line(axes, at[part], values[part], style, regions, linewidth=1.6)
        for point, one, x, groups in zip(points, estimates, at, grouped, strict=True):
            dots = point.by_seed[metric.name]
            axes.plot([x] * len(dots), dots, ".", markersize=2.5, alpha=0.7, **looks)
            said = in_groups(dots, point.seeds, groups, metric.digits) if groups else with_interval(one, metric.digits)
            text = f"{label}, {point.region.in_words}: {said}"
            tips.append(Tip(axes, style.name, (x, one.value), text))
            top = max(top, one.value, *dots, min(np.nan_to_num(one.high), max(1.0, 1.25 * one.value)))
            bottom = min(bottom, one.value, *dots)
    axes.set_ylim(bottom * 1.04, max(top * 1.04, 0.05))
    for end in ends:
        _mark_cut(axes, *end)


def _groups(axes: Axes, points: Sequence[Point], metric: Metric, style: Style, groups: Groups) -> None:
    """A curve for each group of an arm's seeds, in place of one mean."""
    at, regions = np.array([point.region.mean_length for point in points]), [point.region for point in points]
    means = [dict(group_means(point.by_seed[metric.name], point.seeds, groups)) for point in points]
    for group in groups:
        _line(axes, at, np.array([mean[group] for mean in means]), style, regions, linewidth=1.2)


def _line(axes: Axes, at: np.ndarray, values: np.ndarray, style: Style, regions: Sequence[Region], **how: Any) -> None:
    """A curve through the values of ``regions``; extrapolation has open markers."""
    for piece in _pieces(regions):
        axes.plot(at[piece], values[piece], style.line, color=style.colour, gid=style.name, **how)
    beyond = np.array([region.side == EXTRAPOLATION for region in regions], dtype=bool)
    for some, filling in ((~beyond, style.colour), (beyond, GROUND)):
        axes.plot(
            at[some], values[some], style.marker, color=style.colour, markerfacecolor=filling, gid=style.name,
            markersize=4.5,
        )  # fmt: skip


def _pieces(regions: Sequence[Region]) -> list[slice]:
    """The parts of a curve: it is broken where a bin of extrapolation is not longer than the last bin in range."""
    breaks = [k for k in range(1, len(regions)) if regions[k].mean_length <= regions[k - 1].mean_length]
    return [slice(start, end) for start, end in itertools.pairwise([0, *breaks, len(regions)])]


def _mark_cut(axes: Axes, style: Style, at: np.ndarray, ends: np.ndarray) -> None:
    """Draw a triangle on the edge wherever an interval extends beyond it; ``ends`` are the ends on one side."""
    bottom, top = axes.get_ylim()
    for edge, beyond, marker in ((top, ends > top, "^"), (bottom, ends < bottom, "v")):
        if beyond.any():
            (drawn,) = axes.plot(
                at[beyond], np.full(beyond.sum(), edge), marker, color=style.colour, markersize=4.5, clip_on=False,
                markeredgecolor="white", markeredgewidth=0.4, zorder=5, gid=style.name,
            )  # fmt: skip
            drawn.set_in_layout(False)


def _known(study: Study, label: str, metric: Metric) -> list[Point]:
    """The points of one arm, bin by bin, where a metric is known."""
    return [
        point
        for point in study.points
        if point.arm == label and not point.region.total
        and metric.name in point.metrics and not math.isnan(point.metrics[metric.name].value)
    ]  # fmt: skip


def advantage(study: Study, form: Form = PAGE) -> Plot:
    """Paired advantage over the baseline against length, with intervals."""
    with mpl.rc_context(RC):
        figure = Figure(figsize=form.size(3.2, 3.2), layout="constrained")
        axes = figure.subplots()
        tips: list[Tip] = []
        shown = arm_styles(study)
        compared = [label for label in shown if any(one.arm == label for one in study.differences)]
        width = min(high - low for low, high in zip(study.bins.edges, study.bins.edges[1:], strict=False))
        extremes = [0.0]
        ends: list[tuple[Style, np.ndarray, np.ndarray]] = []
        for order, label in enumerate(compared):
            ones = _bins_of(study, label)
            aside = (order - (len(compared) - 1) / 2) * 0.5 * width / max(len(compared), 1)
            style = shown[label]
            at = np.array([one.region.mean_length + aside for one in ones])
            values = np.array([one.advantage.value for one in ones])
            halves = np.array([np.nan_to_num(one.advantage.high - one.advantage.value) for one in ones])
            ends += [(style, at, values - halves), (style, at, values + halves)]
            axes.vlines(at, values - halves, values + halves, color=style.colour, linewidth=1.3, gid=style.name)
            _line(axes, at, values, style, [one.region for one in ones], linewidth=0.9, alpha=0.8)
            for one, x in zip(ones, at, strict=True):
                axes.plot([x] * len(one.by_seed), one.by_seed, ".", color=style.colour, markersize=2.5, gid=style.name)
                extremes += [*one.by_seed]
                said = with_interval(one.advantage, study.metric.digits)
                text = f"{label} over {one.baseline}, {one.region.in_words}: {said}"
                tips.append(Tip(axes, style.name, (x, one.advantage.value), text))
            shown_halves = np.minimum(halves, _most_of_an_interval(study, values))
            extremes += [*values, *(values + shown_halves), *(values - shown_halves)]
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.margins(y=0.08)
        room = 0.06 * (max(extremes) - min(extremes) or 0.1)
        axes.set_ylim(min(extremes) - room, max(extremes) + room)
        for end in ends:
            _mark_cut(axes, *end)
        axes.set_ylabel(f"advantage in {study.metric.noun}")
        _lengths(axes, study, labels=not form.is_narrow)
        axes.set_xlabel(study.axis.title)
        return finished(figure, study, form, _advantage_text(study), tips, compared)


def _most_of_an_interval(study: Study, values: np.ndarray) -> float:
    """Half of what a plot of differences must have room for, whatever the intervals: half of the metric's range."""
    metric = study.metric
    return 0.5 / abs(metric.quality_per_unit) if metric.has_quality else float(np.abs(values).max(initial=0.0)) or 0.5


def _lengths(axes: Axes, study: Study, *, labels: bool, words: bool = True) -> None:
    """The x axis in bins, with the lengths seen in training shaded, and named if ``words``."""
    edges, axis = study.bins.edges, study.axis
    axes.set_xlim(edges[0], edges[-1] + 0.01 * (edges[-1] - edges[0]))  # room for a marker on the last edge
    axes.set_xticks(edges)
    ranges = {lengths for arm in study.arms for run in arm.runs if (lengths := run.training_lengths_on(axis.side))}
    above: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom", "fontsize": 7.5}
    if len(ranges) == 1:
        first, last = ranges.pop()
        shortest, longest = axis.in_units(np.array([first - 1, last])).tolist()
        start, end = max(shortest, edges[0]), min(longest, edges[-1])
        if start < end:
            axes.axvspan(start, end, color=SHADE, linewidth=0, zorder=-5)
        if not words:
            return
        if start < end:
            axes.text((start + end) / 2, 1.01, f"{axis.side} length seen in training", **above)
        if (labels or start >= end) and longest < edges[-1]:
            axes.text((max(longest, edges[0]) + edges[-1]) / 2, 1.01, "longer than any seen", **above)
    else:
        for longest in sorted({longest for _, longest in ranges}):  # several arms may share one
            axes.axvline(longest, color="#555555", linestyle=":", linewidth=1.0)
            if words:
                axes.text(longest, 1.01, f"trained to {longest}", **above)


def _counts(axes: Axes, study: Study, *, numbers: bool) -> None:
    """Test examples in each bin."""
    edges = np.array(study.bins.edges)
    middles = (edges[:-1] + edges[1:]) / 2
    counts = study.bins.members(study.lengths).sum(axis=1)
    axes.bar(middles, counts, 0.92 * np.diff(edges), color=GRID, linewidth=0)
    axes.set_ylim(0, counts.max() * 1.6)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_ylabel("examples", rotation=0, ha="right", va="center", fontsize=7.5)
    for middle, count in zip(middles, counts, strict=True):
        axes.text(middle, count, f"{count}", ha="center", va="bottom", fontsize=7 if numbers else 5.5)
    axes.set_xlabel(study.axis.title)


def finished(
    figure: Figure, study: Study, form: Form, text: str, tips: list[Tip], chosen: Sequence[str] | None = None
) -> Plot:
    """Add the legend of the ``chosen`` arms, and compute the layout once, not each time that the figure is saved."""
    shown = {label: style for label, style in arm_styles(study).items() if chosen is None or label in chosen}
    handles = [style.handle(study.shown(label)) for label, style in shown.items()]
    for mark, marked, words in (
        (IMPROVING, study.improving, "still improving"),
        (AT_CHANCE, study.at_chance, "no better than chance"),
    ):
        if marked & {*shown}:
            handles.append(Line2D([], [], linestyle="none", label=f"{mark} {words}"))
    inches = (0.6 + 0.067 * max(len(arm.label) for arm in study.arms)) * form.font / 9  # a handle, and letters
    columns = min(max(int(figure.get_figwidth() / inches), 1), 2 if form.is_narrow else 4)
    legend = figure.legend(handles=handles, loc="outside upper left", ncols=columns, fontsize=8, handlelength=3.2)
    for style, handle, label in zip(shown.values(), legend.legend_handles, legend.get_texts(), strict=False):
        assert handle is not None
        handle.set_gid(style.name)
        label.set_gid(style.name)
    lay_out(figure, form)
    return Plot(figure, text, tuple(tips))


def _bins_of(study: Study, label: str) -> list[Difference]:
    """The differences of one arm to its baseline, bin by bin."""
    return [one for one in study.differences if one.arm == label and not one.region.total]


def _curves_text(study: Study, metric: Metric) -> str:
    return f"{metric.title} against {study.axis.noun}: " + "; ".join(
        f"{arm.label} from {_from_to([(point.region, point.metrics[metric.name]) for point in points], metric.digits)}"
        for arm in study.arms
        if (points := _known(study, arm.label, metric))
    )


def _advantage_text(study: Study) -> str:
    digits = study.metric.digits
    return f"Advantage in {study.metric.noun} against {study.axis.noun}: " + "; ".join(
        f"{label} over {ones[0].baseline} from {_from_to([(one.region, one.advantage) for one in ones], digits)}"
        for label in study.compared
        if (ones := _bins_of(study, label))
    )


def _from_to(curve: Sequence[tuple[Region, Estimate]], digits: int) -> str:
    return " to ".join(f"{number(one.value, digits)} at {region.in_words}" for region, one in (curve[0], curve[-1]))
