"""Gradient norms against distance: medians by distance, and the decades lost per ten steps."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

INITIAL, TRAINED = "initial", "trained"
TITLES = {INITIAL: "before training", TRAINED: "after training"}

PER = 10
"""The width of a bin, and the unit of slopes, in recurrent steps."""
_SMALLEST = np.finfo(np.float64).tiny
"""Replaces a norm of 0, which has no logarithm."""


def norms_by_distance(measured: pd.DataFrame) -> pd.DataFrame:
    """gradient_flow.csv: the norms of each arm, seed and state, in bins of distance (``above`` < d <= ``up_to``).

    Args:
        measured: one row per pair of output and source token: arm, seed, state, steps, norm.
    """
    logs = measured.assign(
        above=(measured["steps"] - 1) // PER * PER, log10=np.log10(measured["norm"].clip(lower=_SMALLEST))
    )
    groups = logs.groupby(["arm", "seed", "state", "above"], sort=False)
    table = groups.agg(median=("norm", "median"), mean_log10=("log10", "mean"), n=("norm", "size")).reset_index()
    table.insert(4, "up_to", table["above"] + PER)
    return table.sort_values(["arm", "seed", "state", "above"], ignore_index=True)


def fit_slopes(measured: pd.DataFrame) -> pd.DataFrame:
    """slopes.csv: for each arm and state, the decades that the norm loses per 10 more steps; above 0 for a loss.

    A least-squares line is fitted to log10 of the norms of each seed. ``decades`` is the mean of the slopes. ``low``
    and ``high`` bound its 95% t interval over seeds; they are nan with one seed.
    """
    rows = []
    for (arm, state), part in measured.groupby(["arm", "state"], sort=False):
        lost = np.array([_decades_lost(of_seed) for _, of_seed in part.groupby("seed")])
        half = np.nan
        if len(lost) > 1:
            half = float(stats.t.ppf(0.975, len(lost) - 1) * lost.std(ddof=1) / np.sqrt(len(lost)))
        mean = float(lost.mean())
        rows.append((arm, state, mean, mean - half, mean + half, len(lost), len(part)))
    return pd.DataFrame(rows, columns=["arm", "state", "decades", "low", "high", "seeds", "pairs"])


def _decades_lost(pairs: pd.DataFrame) -> float:
    steps = pairs["steps"].to_numpy(dtype=np.float64)
    away = steps - steps.mean()
    logs = np.log10(pairs["norm"].clip(lower=_SMALLEST).to_numpy())
    spread = float(away @ away)
    return -PER * float(away @ logs) / spread if spread else float("nan")
