"""A study: runs of several arms on one test set, and what they show by length. Neither torch nor files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from attnspan.analysis.arms import Arm, arms_of, baselines, metric_for
from attnspan.analysis.collection import Collection
from attnspan.analysis.comparison import Difference, Trend, differences, trends
from attnspan.analysis.learning import is_still_improving
from attnspan.analysis.lengths.axis import LengthAxis, choose_axis
from attnspan.analysis.lengths.bins import Bins, Lengths
from attnspan.analysis.lengths.regions import Partition, Region, members, partition
from attnspan.analysis.lengths.spans import ArmSpan, best_arm, spans
from attnspan.analysis.lengths.training_range import SIDES, TrainingRange, distinct
from attnspan.analysis.lengths.words import plural
from attnspan.analysis.metrics import (
    ATTENTION,
    DEGENERATE,
    ERROR_RATE,
    QUALITY,
    STOPPING,
    Metric,
    RecordMetric,
    metrics_in,
)
from attnspan.analysis.notes import (
    notes_on_arms,
    notes_on_chance,
    notes_on_evaluations,
    notes_on_groups,
    notes_on_origin,
    notes_on_training,
)
from attnspan.analysis.seed_groups import Groups, seed_groups
from attnspan.analysis.statistics import Estimate, Floats, Rates
from attnspan.analysis.text_metrics import CORPUS_SCORES, PERPLEXITIES, TER, CorpusScore, is_text
from attnspan.errors import InputError
from attnspan.runs.summary import ends_at_chance

IMPROVING = "†"
"""Stands beside an arm that was still improving when its training ended."""
AT_CHANCE = "‡"
"""Stands beside an arm of which a run was no better at the end than equal probabilities for all symbols."""


@dataclass(frozen=True)
class Point:
    """One arm on the examples of one region; metrics by name."""

    arm: str
    region: Region
    seeds: tuple[int, ...]
    metrics: dict[str, Estimate]
    by_seed: dict[str, Floats]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Runs of several arms on one test set."""

    collection: Collection
    arms: tuple[Arm, ...]
    """The baseline first, then by label."""
    baseline: str
    compared: dict[str, str]
    """The label of every compared arm, with that of its baseline."""
    legend: tuple[str, ...]
    """Labels in the order of their colours, including arms that only other studies of the report have."""
    partition: Partition
    """The test examples in bins of length, and in range or not."""
    keep: float
    """The span ends where less than this share of quality is left."""
    text: bool = False
    """Whether the target is text, so that BLEU and chrF apply."""
    ter: bool = False
    """Whether TER is given too."""
    metric: Metric = ERROR_RATE
    """By which arms are compared, plotted and ranked."""
    own: tuple[RecordMetric, ...] = ()
    """Metrics of the user's own, which every record has."""
    loss: float | None = None
    """The validation loss to which training is timed; None for the lowest that every run reached."""

    @property
    def data(self) -> str:
        """The data set's name, in files that programs read."""
        return str(self.collection.runs[0].summary["data"])

    @property
    def data_shown(self) -> str:
        """The data set's name as it is shown."""
        return self.collection.files.label("data", self.data)

    @property
    def test_set(self) -> pd.DataFrame:
        """The records of one run; all runs have the same sources and references."""
        return self.collection.runs[0].records

    @property
    def axis(self) -> LengthAxis:
        """The length by which results are given."""
        return self.partition.axis

    @property
    def bins(self) -> Bins:
        """Of that length."""
        return self.partition.bins

    @property
    def lengths(self) -> Lengths:
        """That length of every test example."""
        return self.partition.lengths

    def by(self, side: str) -> Study:
        """The same study by the other length, in even bins of tokens: that of the ``source`` or of the ``target``."""
        if self.axis.name == side:
            return self
        ranges = [arm.training_range for arm in self.arms]
        return replace(self, partition=partition(LengthAxis(side), self.test_set, ranges))

    @cached_property
    def ranges(self) -> list[TrainingRange]:
        """What arms have seen in training, each range once, the shortest first."""
        return distinct(arm.training_range for arm in self.arms)

    def trained_up_to(self, ranges: Sequence[TrainingRange]) -> str:
        """In words, as in ``20 or 40 source tokens``; both sides where one does not tell the ranges of arms apart."""
        side = self.axis.side
        if None in (longest := {one.longest(side) for one in self.ranges}) or len(longest) < len(self.ranges):
            return " or ".join(map(str, ranges))
        *most, last = (str(one.longest(side)) for one in ranges)
        unit = plural(last, f"{side} token")
        return f"{', '.join(most)} or {last} {unit}" if most else f"{last} {unit}"

    @cached_property
    def notes(self) -> list[str]:
        """What a reader must know before believing the numbers, one sentence each."""
        of_training = [*notes_on_training(self.improving, IMPROVING), *notes_on_chance(self.arms, AT_CHANCE)]
        of_arms = notes_on_arms(self.arms, self.compared, best_arm(self.arms, self.partition.whole_bins, self.metric))
        of_groups = notes_on_groups(self.groups)
        runs = self.collection.runs
        of_runs = [*notes_on_evaluations(runs), *notes_on_origin(runs)]
        return [*of_training, *of_groups, *of_arms, *of_runs, *self.partition.notes]

    @cached_property
    def improving(self) -> frozenset[str]:
        """The labels of the arms of which a run was still improving when its training ended."""
        return frozenset(arm.label for arm in self.arms if any(map(is_still_improving, arm.runs)))

    @cached_property
    def at_chance(self) -> frozenset[str]:
        """The labels of the arms of which a run ended no better than chance."""
        return frozenset(arm.label for arm in self.arms if any(ends_at_chance(run.summary) for run in arm.runs))

    @cached_property
    def groups(self) -> dict[tuple[str, str], Groups]:
        """(label, side) -> groups, where the seeds of an arm fall into any: no mean of them means something there."""
        found = dict[tuple[str, str], Groups]()
        for arm in self.arms:
            regions = self.regions(arm)
            for side in SIDES:
                of_side = [region for region in regions if region.side == side]
                if of_side and (groups := seed_groups(arm, of_side)):
                    found[arm.label, side] = groups
        return found

    def groups_in(self, side: str, *labels: str) -> Groups | None:
        """Those on one side, of the first of some arms that has any; where ``side`` is empty, on either."""
        sides = (side,) if side else SIDES
        return next((self.groups[label, one] for label in labels for one in sides if (label, one) in self.groups), None)

    def shown(self, label: str) -> str:
        """An arm's label for a table or a plot, with a mark if it was still improving, or at chance."""
        marks = {IMPROVING: self.improving, AT_CHANCE: self.at_chance}
        return " ".join([label, *(mark for mark, marked in marks.items() if label in marked)])

    def arm(self, label: str) -> Arm:
        """The arm with that label."""
        return next(arm for arm in self.arms if arm.label == label)

    def regions(self, *arms: Arm) -> list[Region]:
        """The bins in range of all of ``arms``, then the others, then each side as a whole (if it has examples)."""
        return self.partition.regions(*(arm.training_range for arm in arms))

    @cached_property
    def curve(self) -> list[Point]:
        """Quality, degenerate output and stopping of every arm in every region."""
        return self._points([*metrics_in(QUALITY), *self.own, *metrics_in(DEGENERATE, STOPPING)])

    @cached_property
    def attention(self) -> list[Point]:
        """Where teacher-forced attention looks, for every arm that has attention, in every region."""
        return self._points(metrics_in(ATTENTION))

    @property
    def points(self) -> list[Point]:
        """Every metric of every arm in every region."""
        return [*self.curve, *self.attention, *self.translation]

    @property
    def stopping_metrics(self) -> list[RecordMetric]:
        """The metrics of stopping that are known of any arm."""
        known = {name for point in self.curve for name in point.metrics}
        return [metric for metric in metrics_in(STOPPING) if metric.name in known]

    @property
    def quality_metrics(self) -> list[RecordMetric]:
        """The metrics of quality that are known of any arm."""
        known = {name for point in self.curve for name in point.metrics}
        return [metric for metric in (*metrics_in(QUALITY), *self.own) if metric.name in known]

    @property
    def attention_metrics(self) -> list[RecordMetric]:
        """The metrics of attention that are known of any arm."""
        known = {name for point in self.attention for name in point.metrics}
        return [metric for metric in metrics_in(ATTENTION) if metric.name in known]

    @property
    def corpus_scores(self) -> list[CorpusScore]:
        """The corpus scores that are given; none where the target is not text."""
        return [score for score in CORPUS_SCORES if self.text and (self.ter or not score.on_request)]

    @cached_property
    def translation(self) -> list[Point]:
        """Corpus scores and perplexities of every arm in every region, where the target is text."""
        return [point for arm in self.arms for point in self._text_points(arm)] if self.text else []

    def _text_points(self, arm: Arm) -> list[Point]:
        regions = self.regions(arm)
        rates = {metric: arm.rates(metric, regions) for metric in (*self.corpus_scores, *PERPLEXITIES)}
        return [_point(arm, region, rates, unit) for region, unit in zip(regions, np.eye(len(regions)), strict=True)]

    def _points(self, metrics: Sequence[RecordMetric]) -> list[Point]:
        """The known ones of ``metrics``, for every arm that has any, in every region."""
        points = []
        for arm in self.arms:
            known = [metric for metric in metrics if all(metric.is_known(run.records) for run in arm.runs)]
            of_arm = {metric: arm.sums(metric) for metric in known}
            for region in self.regions(arm) if known else ():
                rates = {metric: Rates.measure(*of_arm[metric], members([region])) for metric in known}
                points.append(_point(arm, region, rates, np.ones(1)))
        return points

    @cached_property
    def differences(self) -> list[Difference]:
        """The advantage of every compared arm over its baseline, in every region."""
        found = []
        for arm, baseline in ((self.arm(label), self.arm(baseline)) for label, baseline in self.compared.items()):
            found += differences(arm, baseline, self.regions(arm, baseline), self.metric)
        return found

    @cached_property
    def spans(self) -> list[ArmSpan]:
        """The span of every arm; none if no arm has any quality in the shortest bin."""
        return spans(self.arms, self.partition, self.keep, self.metric)

    @cached_property
    def trends(self) -> list[Trend]:
        """Slope and drop of every arm, on each side that has two bins or more."""
        found = []
        for arm in self.arms:
            baseline = self.arm(self.compared[arm.label]) if arm.label in self.compared else None
            both = [one for one in (arm, baseline) if one]
            found += trends(arm, baseline, self.regions(*both), self.axis, self.metric)
        return found


def _point(arm: Arm, region: Region, rates: Mapping[Any, Rates], unit: Floats) -> Point:
    """The one of each metric's rates that ``unit`` selects."""
    estimates = {one.name: rate.estimate(unit).clipped(one.lowest, one.highest) for one, rate in rates.items()}
    by_seed = {one.name: rate.by_seed[:, unit.argmax()] for one, rate in rates.items()}
    return Point(arm.label, region, arm.seeds, estimates, by_seed)


def build_study(
    collection: Collection,
    *,
    baseline: str | None = None,
    length: str | None = None,
    edges: Sequence[float] | None = None,
    keep: float = 0.5,
    text: bool | None = None,
    ter: bool = False,
    metric: str = ERROR_RATE.name,
    own: Sequence[RecordMetric] = (),
    loss: float | None = None,
) -> Study:
    """Build the study of some runs; the arguments without a line below are those of :class:`Study`.

    Args:
        collection: the runs.
        baseline: an arm, or the label of a variant; by default ``plain`` if there is one, else the first arm.
        length: by which results are given, one of ``LENGTHS``; by default, see :func:`choose_axis`.
        edges: of the length bins; by default even bins, with an edge on the longest training length.
        text: by default, if the target is cut into subwords, or into words and punctuation.
        metric: the name of the one by which arms are compared; any of those above, or of ``own``.

    Raises:
        InputError: there is no such arm, length or metric, ``keep`` is not between 0 and 1, or TER is requested for a
            target that is not text; or the arms cannot be compared by that metric.
    """
    target_is_text = all(map(is_text, collection.runs)) if text is None else text
    if ter and not target_is_text:
        raise InputError("--ter: edits of words say something about text only; if the target is text, add --text")
    chosen_metric = metric_for(metric, collection.runs, own=own, text=target_is_text)
    if not 0 < keep < 1:
        raise InputError(f"--keep {keep:g}: a share of quality lies between 0 and 1")
    arms = arms_of(collection.runs)
    labels = [arm.label for arm in arms]
    chosen = baseline or ("plain" if any(arm.name == "plain" for arm in arms) else labels[0])
    compared = baselines(arms, chosen)
    names = {arm.label: (arm.label, arm.variant, arm.name, arm.settings) for arm in arms}
    first = min(labels, key=lambda label: names[label].index(chosen) if chosen in names[label] else len(names[label]))
    arms.sort(key=lambda arm: (arm.label not in {first, *compared.values()}, arm.name != chosen))
    ranges, records = [arm.training_range for arm in arms], collection.runs[0].records
    configured = [(run.config.get("data") or {}).get("length") for run in collection.runs]
    axis = choose_axis(length, configured, ranges, records)
    return Study(
        collection=collection, arms=tuple(arms), compared=compared,
        baseline=first if chosen in names[first][:2] else chosen,
        legend=tuple(arm.label for arm in arms), partition=partition(axis, records, ranges, edges),
        keep=keep, text=target_is_text, ter=ter or chosen_metric == TER, metric=chosen_metric, own=tuple(own),
        loss=loss,
    )  # fmt: skip


def with_one_legend(studies: Sequence[Study]) -> list[Study]:
    """The same studies, in which an arm has the same colour everywhere."""
    every = tuple(dict.fromkeys(label for study in studies for label in study.legend))
    return [replace(study, legend=every) for study in studies]
