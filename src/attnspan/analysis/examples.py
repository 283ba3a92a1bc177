"""Single test examples to look at, chosen by a rule and by nobody's eye: where attention went, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from attnspan.analysis.bins import joined
from attnspan.analysis.metrics import ATTENTION_ENTROPY, is_known
from attnspan.analysis.study import Arm, Region, Study
from attnspan.errors import InputError
from attnspan.runs.attention_maps import Heatmap, read_attended
from attnspan.runs.finished_run import Run

DEGENERATE = ("empty", "truncated", "repeating")
"""The columns of records that say in which way an output is degenerate."""


@dataclass(frozen=True)
class Map:
    """Where the attention of one arm went on one example, or why that cannot be shown."""

    arm: str
    seed: int
    heatmap: Heatmap | None
    missing: str = ""
    """Why there is no map."""


@dataclass(frozen=True)
class Attended:
    """One example, and where each arm looked."""

    example_id: str
    seen: str
    """In words, whether training saw sources so long."""
    source: str
    source_length: int
    reference: str
    maps: tuple[Map, ...]
    """One an arm."""


@dataclass(frozen=True)
class Failure:
    """A degenerate output."""

    kind: str
    """``empty``, ``truncated`` or ``repeating``."""
    region: Region
    arm: str
    outputs: int
    """How many outputs of the arm in the region are of that kind, over all seeds ..."""
    out_of: int
    """... of how many."""
    seed: int
    example_id: str
    source: str
    reference: str
    hypothesis: str


def attended(study: Study) -> list[Attended]:
    """The examples of which runs kept attention, the shortest first; of each arm the least seed that kept any.

    Runs keep the same examples, by :func:`attnspan.evaluation.attention_maps.shown_examples`.
    """
    kept = {arm.label: _kept(arm) for arm in study.arms}
    ids = {name for _, maps, _ in kept.values() for name in maps}
    rows = study.test_set[study.test_set["example_id"].isin(ids)].to_dict("records")  # by length
    return [
        Attended(
            row["example_id"],
            _seen(study, row["source_length"]),
            row["source"],
            row["source_length"],
            row["reference"],
            tuple(_map(arm, *kept[arm.label], row["example_id"]) for arm in study.arms),
        )
        for row in rows
    ]


def _seen(study: Study, length: int) -> str:
    """Whether training saw sources of ``length`` tokens; where arms were trained up to different lengths, whose did."""
    up_to = sorted({arm.training_max for arm in study.arms if arm.training_max >= length})
    if not up_to:
        return "longer than any seen in training"
    if all(arm.training_max >= length for arm in study.arms):
        return "within the lengths seen in training"
    return f"seen by arms trained up to {joined(map(str, up_to))} tokens only"


def _kept(arm: Arm) -> tuple[Run, dict[str, Heatmap], str]:
    """The run of an arm that kept maps, its maps, and why there are none."""
    run = arm.runs[0]
    if not is_known(run.records, ATTENTION_ENTROPY):
        return run, {}, "has no attention"
    why = "kept no attention weights"
    for run in arm.runs:
        try:
            if maps := read_attended(run.directory):
                return run, maps, why
        except InputError as error:
            why = f"cannot be read: {error}"
    return arm.runs[0], {}, why


def _map(arm: Arm, run: Run, maps: dict[str, Heatmap], why: str, example_id: str) -> Map:
    if example_id in maps:
        return Map(arm.label, run.seed, maps[example_id])
    records = run.records
    empty = maps and bool(records.loc[records["example_id"] == example_id, "empty"].iloc[0])
    return Map(arm.label, run.seed, None, "put out nothing" if empty else why)


def failures(study: Study) -> list[Failure]:
    """For each kind, bin and arm that has any, the degenerate output of least example id (and then least seed)."""
    regions = [region for region in study.regions(study.arms[0].training_max) if not region.total]
    return [one for kind in DEGENERATE for region in regions for arm in study.arms for one in _least(kind, region, arm)]


def _least(kind: str, region: Region, arm: Arm) -> Iterator[Failure]:
    found = []
    examples = 0
    for run in arm.runs:
        length = run.records["source_length"].to_numpy()
        inside = (length > region.above) & (length <= region.up_to)
        examples += int(inside.sum())
        rows = np.flatnonzero(inside & run.records[kind].to_numpy())
        found += [
            (str(name), run.seed, run, int(row))
            for name, row in zip(run.records["example_id"].iloc[rows], rows, strict=True)
        ]
    if found:
        name, seed, run, row = min(found, key=lambda one: one[:2])
        record = run.records.iloc[row]
        yield Failure(
            kind, region, arm.label, len(found), examples, seed, name,
            record["source"], record["reference"], record["hypothesis"],
        )  # fmt: skip
