"""Gradient norms against distance: bins, and the decades lost per ten steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

if TYPE_CHECKING:
    pass


INITIAL, TRAINED = "initial", "trained"


PER = 10
"""Bins are so many steps wide, and slopes are per so many."""


_LEAST = np.finfo(np.float64).tiny
"""Stands for a norm of 0, which has no logarithm."""


def binned(measured: pd.DataFrame) -> pd.DataFrame:
    """reach.csv: the norms of each arm, seed and state, in bins of distance: more than ``above``, at most ``up_to``."""
    logs = measured.assign(
        above=(measured["steps"] - 1) // PER * PER, log10=np.log10(measured["norm"].clip(lower=_LEAST))
    )
    groups = logs.groupby(["arm", "seed", "state", "above"], sort=False)
    table = groups.agg(median=("norm", "median"), mean_log10=("log10", "mean"), n=("norm", "size")).reset_index()
    table.insert(4, "up_to", table["above"] + PER)
    return table.sort_values(["arm", "seed", "state", "above"], ignore_index=True)


def fitted(measured: pd.DataFrame) -> pd.DataFrame:
    """slopes.csv: per arm and state the decades that the norm loses with every 10 more steps, above 0 for a loss.

    Each seed has a least-squares line through log10 of the norms; ``decades`` is the mean of their slopes, ``low`` and
    ``high`` bound its 95% t interval over seeds, nan with one seed.
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
    logs = np.log10(pairs["norm"].clip(lower=_LEAST).to_numpy())
    spread = float(away @ away)
    return -PER * float(away @ logs) / spread if spread else float("nan")
