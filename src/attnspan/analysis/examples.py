"""Single test examples, chosen by a rule: the first of each bin, attention maps and degenerate outputs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from attnspan.analysis.arms import Arm
from attnspan.analysis.lengths.regions import Region
from attnspan.analysis.metrics import ATTENTION_ENTROPY, DEGENERATE, RecordMetric, metrics_in
from attnspan.analysis.study import Study
from attnspan.errors import InputError
from attnspan.runs.attention_maps import AttentionMap, read_attention_maps
from attnspan.runs.finished_run import Run


@dataclass(frozen=True)
class ArmMap:
    """The attention map of one arm on one example, or why there is none."""

    arm: str
    seed: int
    heatmap: AttentionMap | None
    missing: str = ""


@dataclass(frozen=True)
class MappedExample:
    """One example with the attention map of every arm."""

    example_id: str
    in_training: str
    """In words, whether training saw such lengths."""
    source: str
    source_length: int
    target_length: int
    reference: str
    maps: tuple[ArmMap, ...]


@dataclass(frozen=True)
class DegenerateOutput:
    """An example of degenerate output; ``outputs`` of ``out_of`` outputs of the arm in the region are of its kind."""

    metric: RecordMetric
    """The rate of this kind of output."""
    region: Region
    arm: str
    outputs: int
    out_of: int
    seed: int
    example_id: str
    source: str
    reference: str
    hypothesis: str


def first_examples(study: Study, per_bin: int) -> list[list[int]]:
    """Rows of the test set: in each bin, on each side of what training saw, the ``per_bin`` of least example id.

    A smaller ``per_bin`` chooses the first of these.
    """
    names = study.test_set["example_id"].to_numpy()
    regions = [region for part in study.partition.parts for region in study.partition.in_part(part, "")]
    inside = [np.flatnonzero(region.inside) for region in regions]
    return [rows[np.argsort(names[rows], kind="stable")][:per_bin].tolist() for rows in inside]


def mapped_examples(study: Study) -> list[MappedExample]:
    """The examples whose attention maps were kept, the shortest first; each arm's lowest seed that kept any.

    All runs keep the same examples, see :func:`attnspan.evaluation.attention_maps.shown_examples`.
    """
    kept = {arm.label: _kept_maps(arm) for arm in study.arms}
    ids = {name for _, maps, _ in kept.values() for name in maps}
    shown = study.test_set[study.test_set["example_id"].isin(ids)]  # by length
    rows = zip(shown.index, shown.to_dict("records"), strict=True)
    return [
        MappedExample(
            row["example_id"], _in_training(study, number), row["source"], row["source_length"], row["target_length"],
            row["reference"], tuple(_map_of(arm, *kept[arm.label], row["example_id"]) for arm in study.arms),
        )
        for number, row in rows
    ]  # fmt: skip


def _in_training(study: Study, number: int) -> str:
    """Whether training saw a source and a target as long as those of example ``number``, and for which arms."""
    (part,) = (part for part in study.partition.parts if part.inside[number])
    saw = [one for one in study.ranges if one not in part.exceeded]
    if not saw:
        return "longer than any seen in training"
    if not part.exceeded:
        return "within the lengths seen in training"
    return f"seen only by arms trained up to {study.trained_up_to(saw)}"


def _kept_maps(arm: Arm) -> tuple[Run, dict[str, AttentionMap], str]:
    """The run of an arm that kept maps, its maps, and why there are none."""
    run = arm.runs[0]
    if not ATTENTION_ENTROPY.is_known(run.records):
        return run, {}, "has no attention"
    why = "kept no attention weights"
    for run in arm.runs:
        try:
            if maps := read_attention_maps(run.directory):
                return run, maps, why
        except InputError as error:
            why = f"cannot be read: {error}"
    return arm.runs[0], {}, why


def _map_of(arm: Arm, run: Run, maps: dict[str, AttentionMap], why: str, example_id: str) -> ArmMap:
    if example_id in maps:
        return ArmMap(arm.label, run.seed, maps[example_id])
    records = run.records
    empty = maps and bool(records.loc[records["example_id"] == example_id, "empty"].iloc[0])
    return ArmMap(arm.label, run.seed, None, "has an empty output" if empty else why)


def degenerate_outputs(study: Study) -> list[DegenerateOutput]:
    """For each kind, bin and arm that has any, the degenerate output with the lowest example id, then seed."""
    regions = [region for region in study.regions(study.arms[0]) if not region.total]
    each = itertools.product(metrics_in(DEGENERATE), regions, study.arms)
    return [output for one in each if (output := _first_output(*one))]


def _first_output(metric: RecordMetric, region: Region, arm: Arm) -> DegenerateOutput | None:
    found = []
    for run in arm.runs:
        is_degenerate, _ = metric.sums_of(run.records)
        rows = np.flatnonzero(region.inside & (is_degenerate > 0))
        names = run.records["example_id"].iloc[rows]
        found += [(str(name), run.seed, run, int(row)) for name, row in zip(names, rows, strict=True)]
    if not found:
        return None
    name, seed, run, row = min(found, key=lambda one: one[:2])
    texts = run.records.iloc[row][["source", "reference", "hypothesis"]]
    return DegenerateOutput(metric, region, arm.label, len(found), len(arm.runs) * region.examples, seed, name, *texts)
