"""The plot of ``attnspan-gradient-flow``: gradient norm against distance, before and after training."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnspan.analysis.gradient_flow import PER, TITLES
from attnspan.files import cannot_write
from attnspan.reporting.formatting import number
from attnspan.reporting.plots import INK, RC, Plot, Style, styles

_FEWEST = 5
"""A bin with fewer pairs is not drawn."""


def draw(measured: pd.DataFrame, slopes: pd.DataFrame, *, note: str) -> Figure:
    """One panel per state: medians over all pairs and seeds as lines, quartiles as bands, medians of one seed as dots.

    Args:
        measured: one row per pair of output and source token: arm, seed, state, steps, norm.
        slopes: one row per arm and state, see :func:`attnspan.analysis.gradient_flow.fit_slopes`.
        note: where the links between outputs and source tokens come from.
    """
    arms = styles(list(dict.fromkeys(measured["arm"])))
    with mpl.rc_context(RC):
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, (state, title) in zip(panels, TITLES.items(), strict=True):
            part = measured[measured["state"] == state]
            for arm, style in arms.items():
                _curve(axes, part[part["arm"] == arm], style)
            axes.set_yscale("log")
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("distance (recurrent steps)")
            _legend(axes, slopes[slopes["state"] == state], arms)
        panels[0].set_xlim(left=0)
        panels[0].set_ylabel(r"$\|\partial\,\mathrm{loss}_t\,/\,\partial e_j\|_2$")
        handles = [style.handle(arm) for arm, style in arms.items()]
        columns = 2 if max(map(len, arms)) > 30 else 4
        figure.legend(handles=handles, loc="outside upper left", ncols=columns, fontsize=8, handlelength=3.2)
        caption = (
            f"Distance: between output t and source token j, in a plain encoder-decoder; {note}.\n"
            "Lines: medians over examples and seeds; bands: quartiles; dots: medians of one seed."
        )
        figure.supxlabel(caption, fontsize=7, x=0.01, ha="left", ma="left")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the format that the file's name ends in.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        Plot(figure, "").save(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def _curve(axes: Axes, pairs: pd.DataFrame, style: Style) -> None:
    pairs = pairs[pairs["norm"] > 0]
    bins = (pairs["steps"] - 1) // PER
    groups = pairs.groupby(bins)
    enough = groups.size() >= _FEWEST
    at = groups["steps"].mean()[enough]
    low, middle, high = (groups["norm"].quantile(q)[enough] for q in (0.25, 0.5, 0.75))
    axes.fill_between(at, low, high, color=style.colour, alpha=0.16, linewidth=0)
    axes.plot(at, middle, linestyle=style.line, marker=style.marker, color=style.colour, linewidth=1.6, markersize=4)
    if pairs["seed"].nunique() > 1:
        by_seed = pairs.groupby([bins, pairs["seed"]])["norm"].median().unstack().reindex(at.index)
        axes.plot(at, by_seed, ".", color=style.colour, markersize=2.5, alpha=0.8)


def _legend(axes: Axes, slopes: pd.DataFrame, arms: dict[str, Style]) -> None:
    """The slopes in the arms' colours, at the lower left, which falling curves do not reach."""
    lines = [("decades lost per 10 steps", INK)]
    for one in slopes.to_dict("records"):
        interval = "" if math.isnan(one["low"]) else f" [{number(one['low'], 2)}, {number(one['high'], 2)}]"
        lines.append((f"{one['arm']} {number(one['decades'], 2)}{interval}", arms[one["arm"]].colour))
    for row, (text, colour) in enumerate(reversed(lines)):
        axes.text(0.03, 0.03 + 0.055 * row, text, transform=axes.transAxes, color=colour, fontsize=7)
