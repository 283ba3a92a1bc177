"""Plots on how the arms of a study learned."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from attnspan.analysis.learning import (
    LearningPoint,
    ended_at,
    is_still_improving,
    learning_curves,
    seconds_until,
    validations,
)
from attnspan.analysis.lengths.words import plural
from attnspan.analysis.study import Study
from attnspan.reporting.formatting import number
from attnspan.reporting.pictures.form import PAGE, Form
from attnspan.reporting.plots import INK, RC, Plot, Style, Tip, arm_styles, finished
from attnspan.runs.finished_run import Run


def training_curves(study: Study, form: Form = PAGE) -> Plot:
    """Validation loss of every run against updates and against time; a hollow end was still improving."""
    with mpl.rc_context(RC):
        figure = Figure(figsize=form.size(3.2, 5.2), layout="constrained")
        grid = (2, 1) if form.is_narrow else (1, 2)
        by_updates, by_time = figure.subplots(*grid, sharey=True, squeeze=False).flat
        tips: list[Tip] = []
        for arm in study.arms:
            style = arm_styles(study)[arm.label]
            for run in arm.runs:
                _curve(by_updates, by_time, run, style, f"{study.shown(arm.label)}, seed {run.seed}", tips)
        for axes, label in ((by_updates, "updates"), (by_time, "training time (seconds)")):
            axes.set_xlabel(label)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.tick_params(axis="x", labelsize=7)
        by_updates.set_ylabel("validation loss (nats per token)")
        if form.is_narrow:
            by_time.set_ylabel("validation loss (nats per token)")
        return finished(figure, study, form, _text(study), tips)


def _curve(by_updates: Axes, by_time: Axes, run: Run, style: Style, name: str, tips: list[Tip]) -> None:
    """One run in both panels."""
    found = [(update, loss) for update, loss in validations(run) if math.isfinite(loss) and loss > 0]
    if not found:
        return
    updates, losses = (np.array(values, dtype=float) for values in zip(*found, strict=True))
    seconds = np.array([seconds_until(run, update) or math.nan for update in updates])
    end = "still improving" if is_still_improving(run) else ended_at(run)
    for axes, at in ((by_updates, updates), (by_time, seconds)):
        if np.isnan(at).any():
            continue
        axes.plot(at, losses, style.line, color=style.colour, linewidth=1.0, alpha=0.85, gid=style.name)
        hollow: dict[str, Any] = {"markerfacecolor": "none"} if is_still_improving(run) else {}
        axes.plot(at[-1], losses[-1], style.marker, color=style.colour, markersize=5, gid=style.name, **hollow)
        where = f"{updates[-1]:,.0f} updates" if axes is by_updates else f"{at[-1]:,.0f} s"
        text = f"{name}: {number(losses[-1])} after {where}, {end}"
        tips.append(Tip(axes, style.name, (float(at[-1]), float(losses[-1])), text))


def _text(study: Study) -> str:
    """The plot in words."""
    words = []
    for arm in study.arms:
        ends = [found[-1] for run in arm.runs if (found := validations(run))]
        if ends:
            losses = ", ".join(f"{number(loss)} after {update:,}" for update, loss in ends)
            words.append(f"{study.shown(arm.label)}: validation loss at the end {losses} updates")
    return ". ".join(words)


def error_over_training(study: Study, form: Form = PAGE) -> Plot:
    """The error by length after 1, 2, 4, ... parts of the training: a panel an arm, from light to dark."""
    points = learning_curves(study.arms)
    side = next(point.side for some in points.values() for point in some)
    columns = min(2 if form.is_narrow else 3, len(points))
    rows = -(-len(points) // columns)
    with mpl.rc_context(RC):
        figure = Figure(figsize=form.size(0.4 + 2.3 * rows, 0.4 + 1.9 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in panels.flat[len(points) :]:
            axes.set_visible(False)
        tips: list[Tip] = []
        for axes, (label, some) in zip(panels.flat, points.items(), strict=False):
            _panel(axes, some, arm_styles(study)[label], tips)
            axes.set_title(study.shown(label), fontsize=8.5, loc="left")
        for axes in panels[:, 0]:
            axes.set_ylabel("error rate, validation")
        for axes in panels[-1]:
            axes.set_xlabel(f"{side} length (tokens)")
        panels[0, 0].set_ylim(0, 1.02)
        return finished(figure, study, form, _points_text(study, points), tips)


def _panel(axes: Axes, points: list[LearningPoint], style: Style, tips: list[Tip]) -> None:
    """The curves of one arm; rates above 1 lie outside."""
    written: list[float] = []  # heights of numbers at the right edge, which must not overlap
    for k, point in reversed([*enumerate(points)]):
        labels, rates = [*point.rates], np.array([*point.rates.values()])
        at = np.arange(len(labels))
        shade = 0.25 + 0.75 * (k + 1) / len(points)
        width = 2.0 if point.is_end else 1.0
        axes.plot(at, rates, "-", color=style.colour, alpha=shade, linewidth=width, gid=style.name)
        if rates[-1] <= 1.02 and all(abs(rates[-1] - other) > 0.06 for other in written):
            written.append(float(rates[-1]))
            axes.annotate(
                f"{point.updates:,.0f}", (at[-1], rates[-1]), xytext=(3, -2), textcoords="offset points",
                fontsize=6, color=INK,
            )  # fmt: skip
        when = f"{point.updates:,.0f} updates{', the end' if point.is_end else ''}"
        for x, label, rate in zip(at, labels, rates, strict=True):
            if rate <= 1.02:
                text = f"{label} {plural(label, f'{point.side} token')} after {when}: {number(rate)}"
                tips.append(Tip(axes, style.name, (float(x), float(rate)), text))
    lengths = [*points[0].rates] if points else []
    axes.set_xticks(np.arange(len(lengths)), lengths, rotation=45 if len(lengths) > 4 else 0)
    axes.tick_params(axis="x", labelsize=7)


def _points_text(study: Study, points: dict[str, list[LearningPoint]]) -> str:
    """The plot in words: the last curve of each arm."""
    words = []
    for label, some in points.items():
        if some:
            rates = ", ".join(
                f"{lengths} {plural(lengths, f'{some[-1].side} token')} {number(rate)}"
                for lengths, rate in some[-1].rates.items()
            )
            words.append(f"{study.shown(label)} at the end: {rates}")
    return "Error rate on validation by length over training. " + ". ".join(words)
