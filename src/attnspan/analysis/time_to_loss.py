"""How long runs trained until their validation loss came down to a given value.

The run directory has all of it: ``metrics.csv`` the loss of every validation with its update, the summary the seconds
that training took, validation not counted. The time to an update is its share of these seconds, and so as
exact as a run's speed is even, with neither a kill in it nor what else the machine did at that moment.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from attnspan.runs.finished_run import Run
from attnspan.runs.layout import METRICS

_DIGITS = 3


@dataclass(frozen=True)
class Reached:
    """When a run's validation loss was first low enough.

    Attributes:
        updates: of training until the first validation that says so.
        seconds: of training until then; None where the summary does not say how long training took.
    """

    updates: int
    seconds: float | None


def validations(run: Run) -> list[tuple[int, float]]:
    """(updates until then, loss in nats per target token) of every validation; none where ``metrics.csv`` has none."""
    try:
        table = pd.read_csv(run.directory / METRICS)
        rows = table[["step", "validation/loss"]].dropna().itertuples(index=False)
        return [(int(step) + 1, float(loss)) for step, loss in rows]  # Lightning counts updates from 0
    except (KeyError, ValueError, OSError):
        return []


def reached(run: Run, loss: float) -> Reached | None:
    """When the validation loss of ``run`` was ``loss`` or less for the first time; None if it never was."""
    for update, found in validations(run):
        if found <= loss:
            seconds, updates = run.summary.get("train_seconds"), run.summary.get("updates")
            return Reached(update, seconds * update / updates if seconds and updates else None)
    return None


def common_loss(runs: Iterable[Run]) -> float | None:
    """The least loss, in steps of 0.001, that every run came down to; None where that of a run is not known."""
    best = [min((loss for _, loss in validations(run)), default=math.nan) for run in runs]
    highest = max(best) if not any(map(math.isnan, best)) else math.nan
    return math.ceil(highest * 10**_DIGITS) / 10**_DIGITS if math.isfinite(highest) else None
