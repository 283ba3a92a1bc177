"""The metrics: each is declared once in ``METRICS``, and tables, plots, pages, csv files and W&B follow.

A metric is a ratio of two sums over examples, computed from columns of the records (:mod:`attnspan.runs.records`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import numpy as np
import pandas as pd

from attnspan.analysis.alignment import alignment_errors
from attnspan.analysis.statistics import Floats

QUALITY = "quality"
"""Shown in ``curve.csv`` and in a table of its own."""
DEGENERATE = "degenerate"
"""Shown in ``curve.csv``, in the table of degenerate output and with examples."""
STOPPING = "stopping"
"""Shown in ``curve.csv`` and in the table of stopping."""
ATTENTION = "attention"
"""Shown in ``attention.csv``, as a panel of the attention plot and in a table of its own."""


@dataclass(frozen=True)
class Metric:
    """A number that is given with its interval for every arm and region."""

    name: str
    """Its column in csv files, and its key on W&B."""
    title: str
    """Its name in captions."""
    _: KW_ONLY
    label: str = ""
    """Its short name, on the axis of a plot or within a sentence."""
    digits: int = 3
    """Decimals in tables."""
    lowest: float = 0.0
    highest: float = 1.0
    """The range of possible values."""


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


def too_short(hypothesis: pd.Series, reference: pd.Series, truncated: pd.Series) -> tuple[Floats, Floats]:
    """Whether the model ended a hypothesis with fewer tokens than its reference has.

    A hypothesis that the length limit cut is not among them, however short: the model did not end it.
    """
    return ratio((hypothesis < reference) & ~truncated)


def too_long(hypothesis: pd.Series, reference: pd.Series) -> tuple[Floats, Floats]:
    """Whether a hypothesis has more tokens than its reference, be it ended or cut."""
    return ratio(hypothesis > reference)


def ended_at_longest(
    hypothesis: pd.Series, reference: pd.Series, truncated: pd.Series, longest: pd.Series
) -> tuple[Floats, Floats]:
    """Whether the model ended a hypothesis at exactly the longest target length in training, and its reference doesn't.

    Most of these are too short as well: the model has learned that no output is longer.
    """
    return ratio((hypothesis == longest) & (reference != longest) & ~truncated)


@dataclass(frozen=True)
class RecordMetric(Metric):
    """A metric that is computed from columns of the records."""

    columns: tuple[str, ...]
    """The columns that ``sums`` takes."""
    _: KW_ONLY
    sums: Callable[..., tuple[Floats, Floats]] = ratio
    """Numerator and denominator [N] of each of N examples; both are summed before they are divided."""
    shown: str = QUALITY
    """``QUALITY``, ``DEGENERATE``, ``STOPPING`` or ``ATTENTION``."""
    unit: str = ""
    """Empty for rates, which may share an axis."""
    meaning: str = ""
    """Of degenerate output and of stopping, what is wrong with it."""
    asked_by: str | None = None
    """The switch of the config without which no record has it."""

    def is_known(self, records: pd.DataFrame) -> bool:
        """Whether the records of a run have all values that the metric needs."""
        return all(records[column].notna().all() for column in self.columns)

    def sums_of(self, records: pd.DataFrame) -> tuple[Floats, Floats]:
        """Numerator and denominator [N] for each of N records."""
        return self.sums(*(records[column] for column in self.columns))


ERROR_RATE = RecordMetric(
    "error_rate", "Error rate", ("edits", "target_length"),
    label="error rate (edits / reference tokens)", highest=np.inf,
)  # fmt: skip
GOLD_ATTENTION = RecordMetric(
    "gold_attention", "Teacher-forced attention on the gold source tokens", ("gold_attention",),
    sums=mean_over_tokens, shown=ATTENTION, label="mass on gold tokens",
)  # fmt: skip
ATTENTION_ENTROPY = RecordMetric(
    "attention_entropy", "Entropy of teacher-forced attention (nats)", ("attention_entropy",),
    sums=mean_over_tokens, shown=ATTENTION, label="entropy (nats)", unit="nats", highest=np.inf,
)  # fmt: skip

METRICS: tuple[RecordMetric, ...] = (
    ERROR_RATE,
    RecordMetric("exact_match", "Exact match", ("exact_match",)),
    RecordMetric(
        "oracle_error_rate", "Error rate with the length of the reference given", ("oracle_edits", "target_length"),
        label="error rate, length given", highest=np.inf, asked_by="oracle_length",
    ),
    RecordMetric(
        "oracle_exact_match", "Exact match with the length of the reference given", ("oracle_exact_match",),
        asked_by="oracle_length",
    ),
    RecordMetric("token_accuracy", "Token accuracy, teacher-forced", ("tokens_correct", "target_tokens")),
    RecordMetric(
        "nll", "Negative log-likelihood per token (nats), teacher-forced", ("nll", "target_tokens"),
        unit="nats", highest=np.inf,
    ),
    RecordMetric("empty", "Empty output", ("empty",), shown=DEGENERATE, label="empty", meaning="no token"),
    RecordMetric(
        "truncated", "Output cut at the length limit", ("truncated",),
        shown=DEGENERATE, label="cut at the length limit", meaning="no <eos> within the limit",
    ),
    RecordMetric(
        "repeating", "Repeating output", ("repeating",),
        shown=DEGENERATE, label="repeating", meaning="loops where the reference does not",
    ),
    RecordMetric(
        "too_short", "Output too short", ("hypothesis_length", "target_length", "truncated"), sums=too_short,
        shown=STOPPING, label="too short", meaning="ended with fewer tokens than its reference",
    ),
    RecordMetric(
        "too_long", "Output too long", ("hypothesis_length", "target_length"), sums=too_long,
        shown=STOPPING, label="too long", meaning="more tokens than its reference",
    ),
    RecordMetric(
        "at_longest_trained", "Output ended at the longest trained length",
        ("hypothesis_length", "target_length", "truncated", "longest_trained_target"), sums=ended_at_longest,
        shown=STOPPING, label="at the longest trained length",
        meaning="ended with exactly as many tokens as the longest target in training, unlike its reference",
    ),
    GOLD_ATTENTION,
    ATTENTION_ENTROPY,
    RecordMetric(
        "attention_support", "Source tokens with any weight in teacher-forced attention", ("attention_support",),
        sums=mean_over_tokens, shown=ATTENTION, label="tokens with weight", unit="tokens", highest=np.inf,
    ),
    RecordMetric(
        "alignment_error_rate", "Alignment error rate of teacher-forced attention",
        ("links", "gold_links", "links_in_sure", "links_in_possible"),
        sums=alignment_error_rate, shown=ATTENTION, label="alignment error rate",
    ),
    RecordMetric(
        "pointing_accuracy", "Teacher-forced attention: the largest weight on a gold source token",
        ("links_in_sure", "links"), shown=ATTENTION, label="largest weight on a gold token",
    ),
)  # fmt: skip
"""All metrics of the records. To add one, add it here, and any new column that it needs to the records."""


def metrics_in(*places: str) -> list[RecordMetric]:
    """The metrics that are shown in one of ``places``."""
    return [metric for metric in METRICS if metric.shown in places]
