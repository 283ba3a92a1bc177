"""How the runs of a study learned: until when, how fast, and what more training would change.

All of it is in the run directories: ``metrics.csv`` has the loss of every validation with its update, and the error
rate by length at validations 1, 2, 4, 8, ... and the last; the summary says why training ended, and has the
training time without validation. The time to an update is its share of that time. So it is as exact as a run's speed is
constant, and neither a resumed process nor another load on the machine at that moment distorts it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from attnspan.analysis.arms import Arm
from attnspan.analysis.statistics import LEVEL, NOTHING, Estimate
from attnspan.data.corpora.base import SIDES
from attnspan.runs.finished_run import Run
from attnspan.runs.status import MAX_STEPS
from attnspan.runs.summary import ends_at_chance

_DIGITS = 3
_ERROR_RATE = "validation_error_rate/"


@dataclass(frozen=True)
class TimeToLoss:
    """When a run's validation loss was first low enough: up to and including the first validation with that loss."""

    updates: int
    seconds: float | None
    """Of training; None where the summary has no training time."""


@dataclass(frozen=True)
class LearningPoint:
    """What the runs of an arm made of validation after the same number of updates, or at the end of each.

    Attributes:
        updates: of the weights; their mean over the runs at the end.
        seconds: of training, the mean over the runs; None where it is not known.
        side: whose lengths the bins are of, ``source`` or ``target``.
        rates: lengths in tokens -> error rate of free-running decoding, the mean over the runs.
        is_end: whether training ended there.
    """

    updates: float
    seconds: float | None
    side: str
    rates: dict[str, float]
    is_end: bool


def validations(run: Run) -> list[tuple[int, float]]:
    """(updates, loss in nats per target token) of every validation; empty where ``metrics.csv`` has none."""
    table = run.metrics
    if not {"step", "validation/loss"} <= {*table}:
        return []
    rows = table[["step", "validation/loss"]].dropna().itertuples(index=False)
    return [(int(step) + 1, float(loss)) for step, loss in rows]  # Lightning counts updates from 0


def seconds_until(run: Run, update: float) -> float | None:
    """Seconds of training up to ``update``; None where the summary has no training time."""
    seconds, updates = run.summary.get("train_seconds"), run.summary.get("updates")
    return seconds * update / updates if seconds and updates else None


def time_to_loss(run: Run, loss: float) -> TimeToLoss | None:
    """When the validation loss of ``run`` was first ``loss`` or less; None if it never was."""
    for update, found in validations(run):
        if found <= loss:
            return TimeToLoss(update, seconds_until(run, update))
    return None


def common_loss(runs: Iterable[Run]) -> float | None:
    """The lowest loss, in steps of 0.001, that every run reached; None where the losses of a run are not known."""
    best = [min((loss for _, loss in validations(run)), default=math.nan) for run in runs]
    highest = max(best) if not any(map(math.isnan, best)) else math.nan
    return math.ceil(highest * 10**_DIGITS) / 10**_DIGITS if math.isfinite(highest) else None


def is_still_improving(run: Run) -> bool:
    """Whether the cap on its updates ended the run, and not a plateau of validation.

    A run from before plateaus were looked for counts as improving if its last validation was its best. A run that has
    ended no better than chance improves no more.
    """
    if ends_at_chance(run.summary):
        return False
    if "ended_by" in run.summary:
        return bool(run.summary["ended_by"] == MAX_STEPS)
    return run.summary.get("best_update") is not None and run.summary["best_update"] == run.summary.get("updates")


def ended_at(run: Run) -> str:
    """Where the training of a run ended, in words."""
    if ends_at_chance(run.summary):
        return "no better than chance"
    return "the cap" if is_still_improving(run) else "a plateau"


def learning_curves(arms: Sequence[Arm]) -> dict[str, list[LearningPoint]]:
    """The error by length over training of every arm, by label; none for any where they go by lengths of two sides."""
    points = {arm.label: learning_points(arm) for arm in arms}
    sides = {point.side for some in points.values() for point in some}
    return points if len(sides) < 2 else {label: [] for label in points}


def learning_points(arm: Arm) -> list[LearningPoint]:
    """The error by length over training: at every update at which all runs of the arm were decoded, and at the end.

    Empty where a run was never decoded in validation, or where runs go by lengths of two sides.
    """
    sides, tables = zip(*(_decoded(run) for run in arm.runs), strict=True)
    if any(table.empty for table in tables) or len(set(sides)) > 1:
        return []
    points = []
    for update in sorted(set.intersection(*(set(table.index[:-1]) for table in tables))):
        rows = [(run, table.loc[update]) for run, table in zip(arm.runs, tables, strict=True)]
        points.append(_point(rows, [update] * len(rows), sides[0], is_end=False))
    ends = [(run, table.iloc[-1]) for run, table in zip(arm.runs, tables, strict=True)]
    return [*points, _point(ends, [int(table.index[-1]) for table in tables], sides[0], is_end=True)]


def _decoded(run: Run) -> tuple[str, pd.DataFrame]:
    """Whose length it is, and update -> error rate in each bin of it."""
    table = run.metrics
    columns = {name: name.removeprefix(_ERROR_RATE) for name in map(str, table) if name.startswith(_ERROR_RATE)}
    if not columns:
        return SIDES[0], pd.DataFrame()
    sides, bins = zip(*(column.rpartition("_")[::2] for column in columns.values()), strict=True)
    of_bins = sorted(zip(columns, bins, strict=True), key=lambda one: int(one[1].partition("-")[0]))
    decoded = table.dropna(subset=[*columns]).set_index("step")[[name for name, _ in of_bins]]
    decoded.index = decoded.index.astype(int) + 1
    # The first runs that were decoded in validation go by the source and do not say so.
    return sides[0] or SIDES[0], decoded.set_axis([lengths.replace("-", "–") for _, lengths in of_bins], axis=1)


def _point(rows: Sequence[tuple[Run, pd.Series]], updates: Sequence[int], side: str, *, is_end: bool) -> LearningPoint:
    times = [seconds_until(run, update) for (run, _), update in zip(rows, updates, strict=True)]
    known = [time for time in times if time is not None]
    rates = pd.concat([row for _, row in rows], axis=1).mean(axis=1)
    return LearningPoint(
        updates=statistics.fmean(updates),
        seconds=statistics.fmean(known) if len(known) == len(times) else None,
        side=side,
        rates={str(label): float(rate) for label, rate in rates.items()},
        is_end=is_end,
    )


def last_doubling(points: Sequence[LearningPoint]) -> dict[str, float]:
    """Lengths -> change of the error rate since half of the updates, or since the last point before.

    Empty where there is no such point. It says what twice the updates have changed, and so about what twice as many
    again may change at most: gains become smaller.
    """
    *before, end = points
    halves = [point for point in before if point.updates <= end.updates / 2]
    return {label: rate - halves[-1].rates[label] for label, rate in end.rates.items()} if halves else {}


def to_plateau(run: Run) -> dict[str, float] | None:
    """Updates, examples and seconds of training up to the last gain before the plateau; None without a plateau."""
    update, updates = run.summary.get("plateau_update"), run.summary.get("updates")
    if not update or not updates:
        return None
    seconds = seconds_until(run, update)
    examples = run.summary["training_examples"] * update / updates
    return {"updates": update, "examples": examples, "seconds": math.nan if seconds is None else seconds}


def relative_to(arm: Arm, baseline: Arm, quantity: str) -> Estimate:
    """A quantity of :func:`to_plateau` relative to that of a baseline: the geometric mean of the ratio, seed by seed.

    The interval is Student's t over the seeds that both have, on the log scale. It is not defined where a run of these
    seeds has no plateau.
    """
    pairs = [
        (to_plateau(own), to_plateau(its))
        for own in arm.runs
        for its in baseline.runs
        if own.seed == its.seed and arm is not baseline
    ]
    if not pairs or any(own is None or its is None for own, its in pairs):
        return NOTHING
    ratios = np.log([own[quantity] / its[quantity] for own, its in pairs if own and its])
    value, n = float(ratios.mean()), len(ratios)
    if n == 1 or not np.isfinite(value):
        return Estimate(math.exp(value), math.nan, math.nan, n)
    half = -float(stdtrit(n - 1, (1 - LEVEL) / 2)) * float(ratios.std(ddof=1)) / math.sqrt(n)
    return Estimate(math.exp(value), math.exp(value - half), math.exp(value + half), n)
