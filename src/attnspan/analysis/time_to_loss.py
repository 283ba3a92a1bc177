"""How long runs trained until their validation loss fell to a given value.

Both parts are in the run directory: ``metrics.csv`` has the loss of every validation with its update, and the summary
has the training time without validation. The time to an update is its share of that time. So it is as exact as a run's
speed is constant, and neither a resumed process nor another load on the machine at that moment distorts it.
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
class TimeToLoss:
    """When a run's validation loss was first low enough: up to and including the first validation with that loss."""

    updates: int
    seconds: float | None
    """Of training; None where the summary has no training time."""


def validations(run: Run) -> list[tuple[int, float]]:
    """(updates, loss in nats per target token) of every validation; empty where ``metrics.csv`` has none."""
    try:
        table = pd.read_csv(run.directory / METRICS)
        rows = table[["step", "validation/loss"]].dropna().itertuples(index=False)
        return [(int(step) + 1, float(loss)) for step, loss in rows]  # Lightning counts updates from 0
    except (KeyError, ValueError, OSError):
        return []


def time_to_loss(run: Run, loss: float) -> TimeToLoss | None:
    """When the validation loss of ``run`` was first ``loss`` or less; None if it never was."""
    for update, found in validations(run):
        if found <= loss:
            seconds, updates = run.summary.get("train_seconds"), run.summary.get("updates")
            return TimeToLoss(update, seconds * update / updates if seconds and updates else None)
    return None


def common_loss(runs: Iterable[Run]) -> float | None:
    """The lowest loss, in steps of 0.001, that every run reached; None where the losses of a run are not known."""
    best = [min((loss for _, loss in validations(run)), default=math.nan) for run in runs]
    highest = max(best) if not any(map(math.isnan, best)) else math.nan
    return math.ceil(highest * 10**_DIGITS) / 10**_DIGITS if math.isfinite(highest) else None
