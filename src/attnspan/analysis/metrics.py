"""The metrics: each is declared once in ``METRICS``, and tables, plots, pages, csv files and W&B follow.

A metric is a ratio of two sums over examples, computed from columns of the records (:mod:`attnspan.runs.records`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from attnspan.analysis.alignment import alignment_errors
from attnspan.analysis.statistics import Floats

QUALITY = "quality"
"""Shown in ``curve.csv`` and in a table of its own."""
DEGENERATE = "degenerate"
"""Shown in ``curve.csv``, in the table of degenerate output and with examples."""
ATTENTION = "attention"
"""Shown in ``attention.csv``, as a panel of the attention plot and in a table of its own."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that is given with its interval for every arm and region.

    Attributes:
        name: its column in csv files, and its key on W&B.
        title: its name in captions.
        label: its short name, on the axis of a plot or within a sentence.
        digits: decimals in tables.
        lowest: the least possible value.
        highest: the greatest possible value.
    """

    name: str
    title: str
    label: str = ""
    digits: int = 3
    lowest: float = 0.0
    highest: float = 1.0


def ratio(numerator: pd.Series, denominator: pd.Series | None = None) -> tuple[Floats, Floats]:
    """Numerator and denominator of each example; without a denominator each example counts 1."""
    values = numerator.to_numpy(np.float64)
    return values, np.ones(len(values)) if denominator is None else denominator.to_numpy(np.float64)


def mean_over_tokens(lists: pd.Series) -> tuple[Floats, Floats]:
    """Sum and number of the known values in each example's list."""
    values = np.concatenate(lists.to_list())
    record = np.repeat(np.arange(len(lists)), lists.map(len))
    known = ~np.isnan(values)
    totals, counts = (np.bincount(record[known], part, len(lists)) for part in (values[known], known[known]))
    return totals.astype(np.float64), counts.astype(np.float64)


def alignment_error_rate(*counts: pd.Series) -> tuple[Floats, Floats]:
    """See :func:`attnspan.analysis.alignment.alignment_errors`."""
    return alignment_errors(**{str(count.name): count.to_numpy(np.float64) for count in counts})


@dataclass(frozen=True, kw_only=True)
class RecordMetric(Metric):
    """A metric that is computed from columns of the records.

    Attributes:
        columns: the columns of the records that ``sums`` takes.
        sums: numerator and denominator [N] of each of N examples; both are summed before they are divided.
        shown: ``QUALITY``, ``DEGENERATE`` or ``ATTENTION``.
        unit: empty for rates, which may share an axis.
        meaning: of degenerate output, what is wrong with it.
    """

    columns: tuple[str, ...]
    sums: Callable[..., tuple[Floats, Floats]] = ratio
    shown: str = QUALITY
    unit: str = ""
    meaning: str = ""

    def is_known(self, records: pd.DataFrame) -> bool:
        """Whether the records of a run have all values that the metric needs."""
        return all(records[column].notna().all() for column in self.columns)

    def sums_of(self, records: pd.DataFrame) -> tuple[Floats, Floats]:
        """Numerator and denominator [N] for each of N records."""
        return self.sums(*(records[column] for column in self.columns))


ERROR_RATE = RecordMetric(
    name="error_rate",
    title="Error rate",
    label="error rate (edits / reference tokens)",
    columns=("edits", "target_length"),
    highest=np.inf,
)
GOLD_ATTENTION = RecordMetric(
    name="gold_attention",
    title="Teacher-forced attention on the gold source tokens",
    label="mass on gold tokens",
    columns=("gold_attention",),
    sums=mean_over_tokens,
    shown=ATTENTION,
)
ATTENTION_ENTROPY = RecordMetric(
    name="attention_entropy",
    title="Entropy of teacher-forced attention (nats)",
    label="entropy (nats)",
    columns=("attention_entropy",),
    sums=mean_over_tokens,
    shown=ATTENTION,
    unit="nats",
    highest=np.inf,
)

METRICS: tuple[RecordMetric, ...] = (
    ERROR_RATE,
    RecordMetric(name="exact_match", title="Exact match", columns=("exact_match",)),
    RecordMetric(
        name="token_accuracy", title="Token accuracy, teacher-forced", columns=("tokens_correct", "target_tokens")
    ),
    RecordMetric(
        name="nll",
        title="Negative log-likelihood per token (nats), teacher-forced",
        columns=("nll", "target_tokens"),
        unit="nats",
        highest=np.inf,
    ),
    RecordMetric(
        name="empty",
        title="Empty output",
        label="empty",
        columns=("empty",),
        shown=DEGENERATE,
        meaning="no token",
    ),
    RecordMetric(
        name="truncated",
        title="Output cut at the length limit",
        label="cut at the length limit",
        columns=("truncated",),
        shown=DEGENERATE,
        meaning="no <eos> within the limit",
    ),
    RecordMetric(
        name="repeating",
        title="Repeating output",
        label="repeating",
        columns=("repeating",),
        shown=DEGENERATE,
        meaning="loops where the reference does not",
    ),
    GOLD_ATTENTION,
    ATTENTION_ENTROPY,
    RecordMetric(
        name="alignment_error_rate",
        title="Alignment error rate of teacher-forced attention",
        label="alignment error rate",
        columns=("links", "gold_links", "links_in_sure", "links_in_possible"),
        sums=alignment_error_rate,
        shown=ATTENTION,
    ),
)
"""All metrics of the records. To add one, add it here, and any new column that it needs to the records."""


def metrics_in(*places: str) -> list[RecordMetric]:
    """The metrics that are shown in one of ``places``."""
    return [metric for metric in METRICS if metric.shown in places]
