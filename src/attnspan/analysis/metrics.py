"""What is measured: each metric is a sum over a sum, example by example, of columns of the records."""

from __future__ import annotations

import numpy as np
import pandas as pd

from attnspan.analysis.alignment import alignment_errors
from attnspan.analysis.statistics import Floats

ERROR_RATE = "error_rate"
METRICS: dict[str, tuple[str, str | None]] = {
    ERROR_RATE: ("edits", "target_length"),
    "exact_match": ("exact_match", None),
    "token_accuracy": ("tokens_correct", "target_tokens"),
    "nll": ("nll", "target_tokens"),
    "empty": ("empty", None),
    "truncated": ("truncated", None),
    "repeating": ("repeating", None),
}
"""The metrics of every arm: the columns of numerator and denominator (None: the number of examples)."""

GOLD_ATTENTION = "gold_attention"
ATTENTION_ENTROPY = "attention_entropy"
ALIGNMENT_ERROR_RATE = "alignment_error_rate"
ATTENTION_METRICS = (GOLD_ATTENTION, ATTENTION_ENTROPY, ALIGNMENT_ERROR_RATE)
"""Where teacher-forced attention looks. Only arms with attention have these, and the first and last need gold links."""

UNBOUNDED = {ERROR_RATE, "nll", ATTENTION_ENTROPY}
"""Metrics that may exceed 1."""

_COUNTS = ("links", "gold_links", "links_in_sure", "links_in_possible")


def is_known(records: pd.DataFrame, metric: str) -> bool:
    """Whether the records of a run say anything about ``metric``."""
    columns = _COUNTS if metric == ALIGNMENT_ERROR_RATE else [metric] if metric in ATTENTION_METRICS else []
    return all(records[column].notna().all() for column in columns)


def sums(records: pd.DataFrame, metric: str) -> tuple[Floats, Floats]:
    """Numerator and denominator [N] of a metric, for each of N records."""
    if metric == ALIGNMENT_ERROR_RATE:
        return alignment_errors(**{column: records[column].to_numpy(np.float64) for column in _COUNTS})
    if metric in ATTENTION_METRICS:
        return _over_positions(records[metric])
    numerator, denominator = METRICS[metric]
    out_of = records[denominator].to_numpy(np.float64) if denominator else np.ones(len(records))
    return records[numerator].to_numpy(np.float64), out_of


def _over_positions(lists: pd.Series) -> tuple[Floats, Floats]:
    """Sum and number of what is known in each record's list."""
    values = np.concatenate(lists.to_list())
    record = np.repeat(np.arange(len(lists)), lists.map(len))
    known = ~np.isnan(values)
    totals, counts = (np.bincount(record[known], part, len(lists)) for part in (values[known], known[known]))
    return totals.astype(np.float64), counts.astype(np.float64)
