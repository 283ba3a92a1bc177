"""Arms: the runs of each, its metrics in regions of length, and which arm is compared to which, and by what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from attnspan.analysis.lengths.regions import Region, members
from attnspan.analysis.lengths.training_range import TrainingRange
from attnspan.analysis.lengths.unreachable import Unreachable, unreachable
from attnspan.analysis.metrics import METRICS, Metric, RecordMetric
from attnspan.analysis.statistics import Floats, Rates
from attnspan.analysis.text_metrics import CORPUS_SCORES, PERPLEXITIES
from attnspan.errors import InputError, nearest
from attnspan.runs.finished_run import Run


@dataclass(frozen=True)
class Arm:
    """All runs of one arm (of one variant of it), one per seed."""

    label: str
    """As it is shown."""
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """The arm's config name, without the settings that make a variant."""
        return self.runs[0].arm

    @property
    def variant(self) -> str:
        """The arm's config name with the settings that make a variant: its name in files that programs read."""
        return self.runs[0].variant

    @property
    def settings(self) -> str:
        """The settings that make it a variant; empty where there are none."""
        return self.variant.removeprefix(self.name).strip()

    @property
    def seeds(self) -> tuple[int, ...]:
        """Ascending."""
        return tuple(run.seed for run in self.runs)

    @cached_property
    def training_range(self) -> TrainingRange:
        """What every run of the arm saw in training."""
        return TrainingRange.of(self.runs)

    @cached_property
    def unreachable(self) -> Unreachable | None:
        """The references that are out of reach of a run of the arm; None where it is not known."""
        return unreachable(self.runs)

    def common_seeds(self, other: Arm) -> tuple[int, ...]:
        """The seeds that both arms have."""
        return tuple(seed for seed in self.seeds if seed in other.seeds)

    def sums(self, metric: RecordMetric, seeds: Sequence[int] | None = None) -> tuple[Floats, Floats]:
        """Numerators and denominators [S, N] of every example, with the S ``seeds`` (default: all)."""
        of_runs = [metric.sums_of(run.records) for run in self.runs if seeds is None or run.seed in seeds]
        numerators, denominators = zip(*of_runs, strict=True)
        return np.stack(numerators), np.stack(denominators)

    def rates(self, metric: Metric, regions: Sequence[Region], seeds: Sequence[int] | None = None) -> Rates:
        """A metric in each of ``regions``, with ``seeds`` (default: all)."""
        chosen = [run.records for run in self.runs if seeds is None or run.seed in seeds]
        inside = members(regions)
        key = (metric, len(chosen), seeds and tuple(seeds), inside.tobytes())
        if key not in self._measured:
            self._measured[key] = metric.rates(chosen, inside)
        return self._measured[key]

    @cached_property
    def _measured(self) -> dict[Any, Rates]:
        """What was measured already: a corpus score takes a second."""
        return {}

    def paired_rates(self, metric: Metric, other: Arm, regions: Sequence[Region], seeds: Sequence[int]) -> Rates:
        """A metric of this arm, then of ``other``, on the same examples with the same seeds."""
        return Rates.paired(self.rates(metric, regions, seeds), other.rates(metric, regions, seeds))


def arms_of(runs: Sequence[Run]) -> list[Arm]:
    """The arms, by name."""
    variants = sorted({run.variant for run in runs}, key=_natural_order)
    by_seed = sorted(runs, key=lambda run: run.seed)
    of_arms = (tuple(run for run in by_seed if run.variant == variant) for variant in variants)
    return [Arm(of_arm[0].label, of_arm) for of_arm in of_arms]


def _natural_order(variant: str) -> list[tuple[int, float, str]]:
    """Sort ``hidden_size=64`` before ``hidden_size=512``."""
    words = variant.replace("=", " ").split()
    return [(0, float(word), "") if word.replace(".", "", 1).isdigit() else (1, 0.0, word) for word in words]


def baselines(arms: Sequence[Arm], baseline: str) -> dict[str, str]:
    """The label of every compared arm, with that of its baseline: the variant with equal settings where there is one.

    Where ``baseline`` is the settings of variants (``decoding.beam_size=1``), the other variants of an arm are compared
    with that one of the same arm.

    Raises:
        InputError: there is no arm, variant or setting ``baseline``.
    """
    labels = [arm.label for arm in arms]
    if whole := [arm.label for arm in arms if baseline in (arm.label, arm.variant)]:
        return {label: whole[0] for label in labels if label != whole[0]}
    with_settings = {arm.name: arm.label for arm in arms if baseline and arm.settings == baseline}
    if with_settings:
        others = [arm for arm in arms if arm.settings != baseline and arm.name in with_settings]
        return {arm.label: with_settings[arm.name] for arm in others}
    if baseline not in {arm.name for arm in arms}:
        known = [*labels, *(arm.variant for arm in arms), *(arm.settings for arm in arms if arm.settings)]
        raise InputError(f"--baseline {baseline}: no such arm among these runs; {nearest(baseline, known)}")
    variants = {arm.settings: arm.label for arm in arms if arm.name == baseline}
    compared = {arm.label: variants[arm.settings] for arm in arms if arm.name != baseline and arm.settings in variants}
    if compared:
        return compared
    first = next(iter(variants.values()))
    return {label: first for label in labels if label != first}


def metric_for(name: str, runs: Sequence[Run], *, own: Sequence[RecordMetric] = (), text: bool) -> Metric:
    """The metric ``name``.

    Args:
        name: of a metric of the records, of a corpus score, or of one of ``own``.
        runs: which are to be compared.
        own: metrics of the user's own.
        text: whether the target is text.

    Raises:
        InputError: there is no such metric; neither more nor less of it is better; it is about text, and the target is
            none; a run does not have it.
    """
    of_records = {one.name: one for one in (*METRICS, *own)}
    of_text: dict[str, Metric] = {one.name: one for one in (*CORPUS_SCORES, *PERPLEXITIES)}
    every: dict[str, Metric] = {**of_records, **of_text}
    if name not in every:
        known = [one.name for one in every.values() if one.better]
        raise InputError(f"--metric {name}: there is no such metric; {nearest(name, known)}")
    metric = every[name]
    if not metric.better:
        raise InputError(f"--metric {name}: neither more nor less of it is better, so it does not compare arms")
    if name in of_text and not text:
        raise InputError(f"--metric {name}: says something about text only; if the target is text, add --text")
    if name in of_records:
        _refuse_unknown(of_records[name], runs)
    return metric


def _refuse_unknown(metric: RecordMetric, runs: Sequence[Run]) -> None:
    """Refuse a metric that a run does not have."""
    without = sorted({run.label for run in runs if not metric.is_known(run.records)})
    if not without:
        return
    every = len(without) == len({run.label for run in runs})
    remedy = f"; runs have it with {metric.asked_by}=true" if metric.asked_by else ""
    leave = "" if every else "; give the runs of the others only"
    names = "no arm has it" if every else f"{', '.join(without)} {'does' if len(without) == 1 else 'do'} not have it"
    raise InputError(f"--metric {metric.name}: {names}{remedy}{leave}")
