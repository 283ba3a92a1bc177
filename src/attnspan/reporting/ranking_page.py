"""The ranking of arms over several data sets, as tables, a plot and a page above the reports on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from attnspan.analysis.collection import Excluded
from attnspan.analysis.lengths.bins import joined
from attnspan.analysis.lengths.training_range import IN_RANGE
from attnspan.analysis.ranking import Ranking, common_arms
from attnspan.analysis.statistics import Estimate
from attnspan.analysis.study import Study
from attnspan.reporting import plots
from attnspan.reporting.findings import findings
from attnspan.reporting.formatting import NONE, number, with_interval
from attnspan.reporting.page import INDEX, MARKDOWN, addresses, inline, shared_content, template, with_contents
from attnspan.reporting.pictures.form import PAGE, PHONE, Form, lay_out
from attnspan.reporting.tables import Row, Table

_OVER_SEEDS = "over seeds (bootstrap)"


def standings_table(ranking: Ranking, baseline: str) -> Table:
    """For every arm its interquartile mean, how often it beats the baseline, and its quality on each data set."""
    rows = []
    for one in ranking.standings:
        better = ranking.improvements.get((one.arm, baseline))
        wins = with_interval(better, 2) if better else NONE
        rows.append(
            Row((one.shown, with_interval(one.iqm), wins, *(number(float(some.mean())) for some in one.scores)))
        )
    columns = ("arm", "interquartile mean of quality", f"P(better than {baseline})", *ranking.data)
    caption = f"Examples {_lengths(ranking.side)}, with 95% intervals"
    return Table(caption, columns, tuple(rows), interval=_OVER_SEEDS)


def improvements_table(ranking: Ranking) -> Table:
    """Every arm against every other."""
    arms = {one.arm: one.shown for one in ranking.standings}
    of = {pair: with_interval(one, 2) for pair, one in ranking.improvements.items()}
    rows = [Row((shown, *(of.get((arm, other), NONE) for other in arms))) for arm, shown in arms.items()]
    caption = f"Probability that a run of the row's arm beats one of the column's, examples {_lengths(ranking.side)}"
    return Table(caption, ("arm", *arms.values()), tuple(rows), interval=_OVER_SEEDS)


def _lengths(side: str) -> str:
    return "of lengths seen in training" if side == IN_RANGE else "longer than any seen in training"


def ranking_findings(studies: Sequence[Study], rankings: Sequence[Ranking]) -> list[str]:
    """One sentence per side."""
    if sentences := [_finding(ranking, studies[0].baseline) for ranking in rankings]:
        return sentences
    if not (metric := studies[0].metric).has_quality:
        return [
            f"There is no ranking by {metric.noun}: no value of it is the worst, so data sets have no common scale."
        ]
    names = joined(study.data_shown for study in studies)
    return [f"The reports on {names} have no arm in common, so there is no ranking."]


def _finding(ranking: Ranking, baseline: str) -> str:
    first = ranking.standings[0]
    start = (
        f"Over {len(ranking.data)} data sets ({joined(ranking.data)}), on examples {_lengths(ranking.side)}, "
        f"{first.arm} has the highest interquartile mean of quality: {_in_words(first.iqm)}"
    )
    other = next((one for one in ranking.standings if one.arm == baseline), None)
    if other is None or other is first:
        return f"{start}.{_learned(ranking, [first.arm])}"
    return (
        f"{start}; {other.arm} has {_in_words(other.iqm)}. A run of {first.arm} beats a run of {other.arm} with "
        f"probability {_in_words(ranking.improvements[first.arm, other.arm], 2)}."
        f"{_learned(ranking, [first.arm, baseline])}"
    )


def _learned(ranking: Ranking, arms: Sequence[str]) -> str:
    """Sentences on those of the arms that had not learned all they can on a data set; empty if all had."""
    failed = joined(f"{arm} on {joined(ranking.at_chance[arm])}" for arm in arms if arm in ranking.at_chance)
    names = joined(f"{arm} on {joined(ranking.improving[arm])}" for arm in arms if arm in ranking.improving)
    chance = f" But training failed for {failed}: the loss ended no lower than chance." if failed else ""
    cap = f" But the cap on updates ended training while there was still improvement: {names}." if names else ""
    return chance + cap


def _in_words(estimate: Estimate, digits: int = 3) -> str:
    if np.isnan(estimate.low):
        why = "a data set has one seed only" if estimate.seeds < 2 else "all runs agree"
        return f"{number(estimate.value, digits)} (no interval, because {why})"
    low, high = number(estimate.low, digits), number(estimate.high, digits)
    return f"{number(estimate.value, digits)} (95% interval {low} to {high})"


def notes(studies: Sequence[Study]) -> list[str]:
    """What a reader must know before believing the ranking."""
    ranked = common_arms(studies)
    left = sorted({arm.label for study in studies for arm in study.arms} - set(ranked))
    some = [f"Not ranked, because not every data set has them: {joined(left)}."] if left else []
    fewest = min(len(study.arm(label).seeds) for study in studies for label in ranked) if ranked else 0
    if fewest == 1:
        some.append("An arm that has one seed on a data set has no interval here.")
    return [*some, *(f"{study.data_shown}: {note}" for study in studies for note in study.notes)]


def ranking_plot(studies: Sequence[Study], rankings: Sequence[Ranking], form: Form = PAGE) -> plots.Plot:
    """Interquartile means with their intervals, one panel a side, the arms in the order of the first."""
    styles = plots.arm_styles(studies[0])
    order, shown = ([getattr(one, name) for one in rankings[0].standings] for name in ("arm", "shown"))
    with mpl.rc_context({**plots.RC, "axes.grid.axis": "x"}):
        each = 0.6 + 0.26 * len(order)
        figure = Figure(figsize=form.size(0.3 + each, 0.3 + each * len(rankings)), layout="constrained")
        grid = (len(rankings), 1) if form.is_narrow else (1, len(rankings))
        panels = figure.subplots(*grid, sharex=True, sharey=True, squeeze=False).ravel()
        tips: list[plots.Tip] = []
        for axes, ranking in zip(panels, rankings, strict=True):
            for one in ranking.standings:
                style, y = styles[one.arm], order.index(one.arm)
                low, high = np.nan_to_num([one.iqm.low, one.iqm.high], nan=one.iqm.value)
                axes.hlines(y, low, high, color=style.colour, linewidth=2.2, gid=style.name)
                axes.plot(one.iqm.value, y, style.marker, color=style.colour, markersize=5.5, gid=style.name)
                text = f"{one.shown}, {ranking.side}: {with_interval(one.iqm)}"
                tips.append(plots.Tip(axes, style.name, (one.iqm.value, y), text))
            axes.set_yticks(range(len(order)), shown)
            axes.set_title(_lengths(ranking.side), fontsize=9, loc="left")
        panels[0].set_ylim(len(order) - 0.5, -0.5)
        panels[0].set_xlim(0, 1)
        figure.supxlabel(f"interquartile mean of quality ({studies[0].metric.quality_in_words})", fontsize=9)
        lay_out(figure, form)
        return plots.Plot(figure, _plot_text(rankings), tuple(tips))


def _plot_text(rankings: Sequence[Ranking]) -> str:
    return "Interquartile mean of quality: " + "; ".join(
        f"examples {_lengths(one.side)}: " + ", ".join(f"{arm.shown} {number(arm.iqm.value)}" for arm in one.standings)
        for one in rankings
    )


def frames(studies: Sequence[Study], rankings: Sequence[Ranking]) -> dict[str, pd.DataFrame]:
    """The numbers: file name -> content."""
    names = {study.data_shown: study.data for study in studies}
    variants = {arm.label: arm.variant for study in studies for arm in study.arms}
    standings = [
        (
            ranking.side,
            variants[one.arm],
            len(ranking.data),
            sum(map(len, one.scores)),
            one.iqm.value,
            one.iqm.low,
            one.iqm.high,
        )
        for ranking in rankings
        for one in ranking.standings
    ]
    improvements = [
        (ranking.side, *(variants[arm] for arm in pair), one.value, one.low, one.high)
        for ranking in rankings
        for pair, one in ranking.improvements.items()
    ]
    seeds = {(study.data_shown, arm.label): arm.seeds for study in studies for arm in study.arms}
    scores = [
        (ranking.side, names[data], variants[one.arm], seed, quality)
        for ranking in rankings
        for one in ranking.standings
        for data, of_data in zip(ranking.data, one.scores, strict=True)
        for seed, quality in zip(seeds[data, one.arm], of_data, strict=True)
    ]
    return {
        "ranking.csv": pd.DataFrame(standings, columns=["side", "arm", "data_sets", "runs", "iqm", "low", "high"]),
        "improvement.csv": pd.DataFrame(improvements, columns=["side", "arm", "other", "probability", "low", "high"]),
        "scores.csv": pd.DataFrame(scores, columns=["side", "data", "arm", "seed", "quality"]),
    }


def ranking_tables(studies: Sequence[Study], rankings: Sequence[Ranking]) -> list[tuple[Table, Table]]:
    """For each side, the standings and the pairwise probabilities."""
    return [(standings_table(one, studies[0].baseline), improvements_table(one)) for one in rankings]


def runs_table(studies: Sequence[Study]) -> Table:
    """The seeds of each arm on each data set."""
    arms = list(dict.fromkeys(arm.label for study in studies for arm in study.arms))
    rows = []
    for label in arms:
        seeds = [next((arm.seeds for arm in study.arms if arm.label == label), ()) for study in studies]
        rows.append(Row((label, *(joined(of_data) if of_data else NONE for of_data in seeds))))
    return Table(
        "The seeds of each arm on each data set", ("arm", *(study.data_shown for study in studies)), tuple(rows)
    )


def pages(
    studies: Sequence[Study],
    rankings: Sequence[Ranking],
    excluded: Sequence[Excluded],
    command: str,
    *,
    files: Mapping[str, str],
) -> dict[str, str]:
    """File name -> content: one HTML file with links to the report on each data set, and the same in Markdown.

    ``files`` are the texts of the files that the page holds in itself.
    """
    content = _content(studies, rankings, excluded, command)
    both = [ranking_plot(studies, rankings, form) for form in (PAGE, PHONE)] if rankings else None
    plot = inline("ranking", *both) if both else None
    html = template("ranking.html.j2").render(content, styles=[], ranking_plot=plot, files=addresses(files))
    return {MARKDOWN: template("ranking.md.j2").render(content), INDEX: with_contents(html)}


def _content(
    studies: Sequence[Study], rankings: Sequence[Ranking], excluded: Sequence[Excluded], command: str
) -> dict[str, Any]:
    runs = [run for study in studies for run in study.collection.runs]
    both = [(plots.degradation(study), plots.degradation(study, PHONE)) for study in studies]
    return shared_content(runs, joined(study.data_shown for study in studies), excluded, command) | {
        "findings": ranking_findings(studies, rankings),
        "metric": studies[0].metric,
        "notes": notes(studies),
        "rankings": ranking_tables(studies, rankings),
        "data_sets": [
            {
                "data": study.data,
                "shown": study.data_shown,
                "findings": findings(study),
                "plot": inline(f"d{i}", *both[i]),
            }
            for i, study in enumerate(studies)
        ],
        "runs": runs_table(studies),
    }
