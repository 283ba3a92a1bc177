"""The metrics: each is declared once in ``METRICS``, and tables, plots, pages, csv files and W&B follow.

A metric is a ratio of two sums over examples, computed from columns of the records (:mod:`attnspan.runs.records`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnspan.analysis.alignment import alignment_errors
from attnspan.analysis.statistics import Floats, Rates

QUALITY = "quality"
"""Shown in ``curve.csv`` and in a table of its own."""
DEGENERATE = "degenerate"
"""Shown in ``curve.csv``, in the table of degenerate output and with examples."""
STOPPING = "stopping"
"""Shown in ``curve.csv`` and in the table of stopping."""
HIGHER, LOWER = "higher", "lower"
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
    better: str = ""
    """``HIGHER`` or ``LOWER``; empty where neither is better, so that arms cannot be compared by it."""
    best: float | None = None
    worst: float | None = None
    """The values of quality 1 and of quality 0; None where there is no such value, and so no span and no ranking."""
    called: str = ""
    """Its name within a sentence; empty for its title."""
    counts: str = ""
    """What it counts, of a sentence on how many an arm makes."""
    definition: str = ""
    """How it is computed, in a sentence."""

    @property
    def noun(self) -> str:
        """Its name within a sentence."""
        if self.called:
            return self.called
        return self.title if self.title[1:2].isupper() else self.title[:1].lower() + self.title[1:]

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if self.better == HIGHER else -1

    @property
    def has_quality(self) -> bool:
        """Whether its values lie between a worst and a best one."""
        return self.best is not None and self.worst is not None

    @property
    def quality_per_unit(self) -> float:
        """By how much quality changes when the metric grows by 1."""
        assert self.best is not None
        assert self.worst is not None
        return 1 / (self.best - self.worst)

    def quality(self, values: Floats) -> Floats:
        """1 at the best value and 0 at the worst, not below 0."""
        assert self.worst is not None
        return np.maximum((values - self.worst) * self.quality_per_unit, 0.0)

    @property
    def quality_in_words(self) -> str:
        """As in ``1 − error rate, not below 0``."""
        if not self.has_quality:
            return ""
        assert self.best is not None
        assert self.worst is not None
        unit = abs(self.best - self.worst)
        if self.best > self.worst:
            above = f"{self.noun} − {self.worst:g}" if self.worst else self.noun
            return above if unit == 1 else f"({above}) / {unit:g}" if self.worst else f"{above} / {unit:g}"
        above = f"({self.noun} − {self.best:g})" if self.best else self.noun
        return f"1 − {above if unit == 1 else f'{above} / {unit:g}'}, not below 0"

    def rates(self, records: Sequence[pd.DataFrame], members: NDArray[np.bool_]) -> Rates:
        """The values of sets of examples.

        Args:
            records: of each of S seeds, on the same N examples.
            members: M x N, True where a set has the example.
        """
        raise NotImplementedError


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

    def rates(self, records: Sequence[pd.DataFrame], members: NDArray[np.bool_]) -> Rates:
        """As :meth:`Metric.rates`: sum over sum."""
        numerators, denominators = zip(*map(self.sums_of, records), strict=True)
        return Rates.measure(np.stack(numerators), np.stack(denominators), members)


_SHARE_OF_GOOD: Any = {"better": HIGHER, "best": 1.0, "worst": 0.0}
_SHARE_OF_BAD: Any = {"better": LOWER, "best": 0.0, "worst": 1.0}

ERROR_RATE = RecordMetric(
    "error_rate", "Error rate", ("edits", "scored_length"),
    label="error rate (edits / reference tokens)", highest=np.inf, better=LOWER, best=0.0, worst=1.0,
    counts="errors per reference token",
    definition="The error rate is the number of edits (insertions, deletions, substitutions) between the free-running "
    "output and the reference, divided by the number of reference tokens, both summed over the bin",
)  # fmt: skip
GOLD_ATTENTION = RecordMetric(
    "gold_attention", "Teacher-forced attention on the gold source tokens", ("gold_attention",),
    sums=mean_over_tokens, shown=ATTENTION, label="mass on gold tokens", **_SHARE_OF_GOOD,
)  # fmt: skip
ATTENTION_ENTROPY = RecordMetric(
    "attention_entropy", "Entropy of teacher-forced attention (nats)", ("attention_entropy",),
    sums=mean_over_tokens, shown=ATTENTION, label="entropy (nats)", unit="nats", highest=np.inf,
)  # fmt: skip

METRICS: tuple[RecordMetric, ...] = (
    ERROR_RATE,
    RecordMetric(
        "exact_match", "Exact match", ("exact_match",), **_SHARE_OF_GOOD,
        definition="Exact match is the share of the examples of a bin whose free-running output equals the reference",
    ),
    RecordMetric(
        "oracle_error_rate", "Error rate with the length of the reference given", ("oracle_edits", "scored_length"),
        label="error rate, length given", highest=np.inf, asked_by="oracle_length", better=LOWER, best=0.0, worst=1.0,
    ),
    RecordMetric(
        "oracle_exact_match", "Exact match with the length of the reference given", ("oracle_exact_match",),
        asked_by="oracle_length", **_SHARE_OF_GOOD,
    ),
    RecordMetric(
        "token_accuracy", "Token accuracy, teacher-forced", ("tokens_correct", "target_tokens"), **_SHARE_OF_GOOD,
        called="teacher-forced token accuracy",
        definition="Token accuracy is the share of the tokens of the references, with their ends, that the model ranks "
        "first after the preceding tokens of the reference",
    ),
    RecordMetric(
        "nll", "Negative log-likelihood per token (nats), teacher-forced", ("nll", "target_tokens"),
        unit="nats", highest=np.inf, better=LOWER, called="teacher-forced negative log-likelihood",
    ),
    RecordMetric(
        "empty", "Empty output", ("empty",), shown=DEGENERATE, label="empty", meaning="no token", **_SHARE_OF_BAD,
    ),
    RecordMetric(
        "truncated", "Output cut at the length limit", ("truncated",),
        shown=DEGENERATE, label="cut at the length limit", meaning="no <eos> within the limit", **_SHARE_OF_BAD,
    ),
    RecordMetric(
        "repeating", "Repeating output", ("repeating",),
        shown=DEGENERATE, label="repeating", meaning="loops where the reference does not", **_SHARE_OF_BAD,
    ),
    RecordMetric(
        "too_short", "Output too short", ("hypothesis_length", "target_length", "truncated"), sums=too_short,
        shown=STOPPING, label="too short", meaning="ended with fewer tokens than its reference", **_SHARE_OF_BAD,
    ),
    RecordMetric(
        "too_long", "Output too long", ("hypothesis_length", "target_length"), sums=too_long,
        shown=STOPPING, label="too long", meaning="more tokens than its reference", **_SHARE_OF_BAD,
    ),
    RecordMetric(
        "at_longest_trained", "Output ended at the longest trained length",
        ("hypothesis_length", "target_length", "truncated", "longest_trained_target"), sums=ended_at_longest,
        shown=STOPPING, label="at the longest trained length",
        meaning="ended with exactly as many tokens as the longest target in training, unlike its reference",
        **_SHARE_OF_BAD,
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
        sums=alignment_error_rate, shown=ATTENTION, label="alignment error rate", **_SHARE_OF_BAD,
    ),
    RecordMetric(
        "pointing_accuracy", "Teacher-forced attention: the largest weight on a gold source token",
        ("links_in_sure", "links"), shown=ATTENTION, label="largest weight on a gold token", **_SHARE_OF_GOOD,
    ),
)  # fmt: skip
"""All metrics of the records. To add one, add it here, and any new column that it needs to the records."""


def metrics_in(*places: str) -> list[RecordMetric]:
    """The metrics that are shown in one of ``places``."""
    return [metric for metric in METRICS if metric.shown in places]
