"""A finished run: reading it, and checking that it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attnspan.errors import InputError
from attnspan.files import read_json
from attnspan.runs import completeness
from attnspan.runs import layout as rundir
from attnspan.runs.former_names import todays_data_name
from attnspan.runs.records import read_records

_NEEDED = ("run_id", "arm", "data", "seed", "training_lengths")
_NUMBERS = ["source_length", "target_length", "scored_length", "nll", "target_tokens", "tokens_correct", "edits"]


@dataclass(frozen=True)
class Part:
    """Examples that a run was tested or evaluated on together."""

    name: str
    """Of the evaluation; ``test`` for the test of the run itself."""
    examples: int
    fingerprint: str
    """The sha256 of the examples."""


@dataclass(frozen=True)
class Run:
    """A finished run, or an evaluation of one."""

    directory: Path
    summary: dict[str, Any]
    config: dict[str, Any]
    records: pd.DataFrame
    """One row per test example, sorted by source length, then example id.

    ``longest_trained_target`` is a column beside those of the file: the longest target in training, of the summary.
    """
    label: str = ""
    """The arm as it is shown, with the settings in which it differs from other runs of that arm."""
    variant: str = ""
    """The same with the arm's config name, for files that programs read."""
    parts: tuple[Part, ...] = ()
    """Of which sets of examples the records are, where they are of several."""

    @property
    def arm(self) -> str:
        """The decoder's config name."""
        return str(self.summary["arm"])

    @property
    def seed(self) -> int:
        """The replicate."""
        return int(self.summary["seed"])

    @property
    def run_id(self) -> str:
        """The hash of everything that can change the numbers."""
        return str(self.summary["run_id"])

    @property
    def evaluation(self) -> str | None:
        """The name of the evaluation; None for the test of the run itself."""
        asked = self.summary.get("evaluation")
        return str(asked["name"]) if isinstance(asked, dict) else None

    @property
    def result_id(self) -> str:
        """The id of the run, with that of the evaluation."""
        asked = self.summary.get("evaluation")
        return f"{self.run_id}/{asked['id']}" if isinstance(asked, dict) else self.run_id

    @property
    def part(self) -> Part:
        """The examples of the records."""
        fingerprint = str(self.summary.get("test_fingerprint"))
        return Part(name=self.evaluation or "test", examples=len(self.records), fingerprint=fingerprint)

    @property
    def trained_in(self) -> Path:
        """The directory of the run itself, where the curves of its training are."""
        return rundir.run_of(self.directory) if rundir.is_evaluation(self.directory) else self.directory

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """``metrics.csv`` of its training; without columns if it cannot be read."""
        try:
            return pd.read_csv(self.trained_in / rundir.METRICS).apply(pd.to_numeric)
        except (ValueError, OSError):
            return pd.DataFrame()

    @property
    def training_lengths(self) -> tuple[int, int]:
        """The shortest and the longest source in training, in tokens."""
        shortest, longest = self.summary["training_lengths"]
        return int(shortest), int(longest)

    @property
    def training_target_lengths(self) -> tuple[int, int] | None:
        """The shortest and the longest target in training, in tokens; None where an older run does not record them."""
        lengths = self.summary.get("training_target_lengths")
        return None if lengths is None else (int(lengths[0]), int(lengths[1]))

    def training_lengths_on(self, side: str) -> tuple[int, int] | None:
        """Those of ``source`` or ``target``."""
        return self.training_lengths if side == "source" else self.training_target_lengths


def read_run(directory: Path) -> Run:
    """Read a finished run.

    Raises:
        InputError: it is not finished, or cannot be trusted; says why.
    """
    # Weights are not needed: they are large, and may not have been copied with the results.
    if why := completeness.why_unfinished(directory, weights=False):
        raise InputError(f"{directory}: is not finished ({why}{_last_state(directory)})")
    summary = read_json(directory / rundir.SUMMARY)
    for key in _NEEDED:
        if summary.get(key) is None:
            raise InputError(f"{directory / rundir.SUMMARY}: key '{key}' is missing")
    for key in ("training_lengths", "training_target_lengths"):
        lengths = summary.get(key)  # older runs lack those of targets
        if lengths is not None and not (isinstance(lengths, list) and [type(one) for one in lengths] == [int, int]):
            raise InputError(f"{directory / rundir.SUMMARY}: {key} is {lengths!r}, not two integers")
    records = read_records(directory / rundir.RECORDS)
    _check(records, summary, directory / rundir.RECORDS)
    trained = summary.get("training_target_lengths")
    records = records.assign(longest_trained_target=trained[1] if trained else np.nan)
    records = records.sort_values(["source_length", "example_id"], kind="stable", ignore_index=True)
    config = rundir.as_of_the_run(rundir.read_config(directory))
    data = todays_data_name(summary["data"], (config.get("evaluation") or config).get("data"))
    summary, records = summary | {"data": data}, records.assign(data=data)
    return Run(directory, summary, config, records)


def _last_state(directory: Path) -> str:
    try:
        state = read_json(directory / rundir.STATUS).get("state")
    except InputError:
        return ""
    return f"; its last state was '{state}'" if state else ""


def _check(records: pd.DataFrame, summary: dict[str, Any], path: Path) -> None:
    for column in _NUMBERS:
        values = records[column].to_numpy(dtype=np.float64)
        finite = np.isfinite(values)
        for bad, what in ((~finite, f" ({(~finite).sum()} such rows)"), (values < 0, ", less than 0")):
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise InputError(f"{path}: row {row}, column '{column}' is {records[column].iloc[row]}{what}")
    for column in ("run_id", "arm", "data", "seed"):
        if (records[column] != summary[column]).any():
            raise InputError(
                f"{path}: is from another run (column '{column}' is not {summary[column]!r} as in the summary)"
            )
    repeated = records["example_id"][records["example_id"].duplicated()]
    if len(repeated):
        raise InputError(f"{path}: row {repeated.index[0]}, example_id '{repeated.iloc[0]}' is not unique")
