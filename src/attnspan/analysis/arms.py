"""Arms: the runs of each, its error rates in regions of length, and which arm is compared to which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from attnspan.analysis.lengths.regions import Region, members
from attnspan.analysis.lengths.training_range import TrainingRange
from attnspan.analysis.lengths.unreachable import Unreachable, unreachable
from attnspan.analysis.metrics import ERROR_RATE, RecordMetric
from attnspan.analysis.statistics import Floats, Rates
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

    def error_rates(self, regions: Sequence[Region], seeds: Sequence[int] | None = None) -> Rates:
        """The error rate in each of ``regions``, with ``seeds`` (default: all)."""
        return Rates.measure(*self.sums(ERROR_RATE, seeds), members(regions))

    def paired_error_rates(self, other: Arm, regions: Sequence[Region], seeds: Sequence[int]) -> Rates:
        """The error rates of this arm, then those of ``other``, on the same examples with the same seeds."""
        return Rates.paired(self.error_rates(regions, seeds), other.error_rates(regions, seeds))


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
