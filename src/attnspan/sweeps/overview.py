"""The states of the runs of a sweep, read from their files; no run is affected. ``attnspan-status`` shows them.

``--json`` prints one document with the keys

=====================  ========================================================================================
``runs``               list with one object per run
``counts``             state -> number of runs, for every state
``remaining_seconds``  estimated seconds to the end of the sweep; null if unknown
=====================  ========================================================================================

and for each run

=====================  ========================================================================================
``run_id``             name of its directory
``arm, data, seed``    null if its files do not say
``overrides``          overrides in which it differs from other runs of its arm and data; null if there are none
``state``              ``queued``, ``running``, ``finished``, ``failed``, ``interrupted``; ``unknown`` if damaged
``phase``              of a running run: starting, preparing, training, validating, testing; else null
``update, updates``    updates done, and all updates
``loss``               last known training loss, nats per target token; null if unknown or not finite
``seconds``            since the run started or resumed; of a finished run all of them
``remaining_seconds``  estimated seconds to the end of a running run's phase; null if unknown
``error_rate``         of a finished run, on test
``reason``             why it failed, what interrupted it, or what is damaged; of a queued run, how it had ended
                       before; of a finished run, that it ended no better than chance; else null
``slurm_job``          id of its SLURM job; null if there is none, or if it has ended
``host, pid``          of its process; of its sweep's process if it is queued; else null
``heartbeat``          when the run last wrote its status, seconds since the epoch; else null
``directory, log``     paths; the log is null if there is none
=====================  ========================================================================================
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from attnspan.config.identity import CHANGES_NOTHING
from attnspan.errors import InputError
from attnspan.files import read_json
from attnspan.runs.layout import LOG, SUMMARY, find_runs
from attnspan.runs.status import FINISHED, INTERRUPTED, QUEUED, RUNNING, STATES, current_status
from attnspan.runs.summary import describe_end
from attnspan.sweeps.time_estimate import RunTimes, makespan

UNKNOWN = "unknown"

_SHOWN_ELSEWHERE = ("decoder", "data", "seed", *CHANGES_NOTHING)
"""Overrides that have a column of their own or change no result."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run; the module's docstring explains the fields."""

    run_id: str
    arm: str | None = None
    data: str | None = None
    seed: int | None = None
    overrides: str | None = None
    state: str
    phase: str | None = None
    update: int = 0
    updates: int = 0
    loss: float | None = None
    seconds: float | None = None
    remaining_seconds: float | None = None
    error_rate: float | None = None
    reason: str | None = None
    slurm_job: str | None = None
    host: str | None = None
    pid: int | None = None
    heartbeat: float | None = None
    directory: str
    log: str | None = None


@dataclass(frozen=True, kw_only=True)
class Overview:
    """All runs in the given directories."""

    rows: list[Row]
    remaining_seconds: float | None

    @property
    def counts(self) -> dict[str, int]:
        """State to number of runs."""
        return {state: sum(row.state == state for row in self.rows) for state in (*STATES, UNKNOWN)}

    @property
    def is_active(self) -> bool:
        """Whether a run is running or queued."""
        return any(row.state in (RUNNING, QUEUED) for row in self.rows)

    def as_json(self) -> str:
        """The document of ``--json``."""
        runs = [asdict(row) for row in self.rows]
        content = {"runs": runs, "counts": self.counts, "remaining_seconds": self.remaining_seconds}
        return json.dumps(content, indent=2, allow_nan=False)


def read_overview(paths: Sequence[Path]) -> Overview:
    """Read the states of all runs in or below ``paths``.

    Raises:
        InputError: a path does not exist, or there is no run in or below it.
    """
    directories = find_runs(paths)
    rows = _with_differing_overrides(*zip(*map(_row, directories), strict=True))
    return Overview(rows=rows, remaining_seconds=_remaining(rows, directories))


def _with_differing_overrides(rows: Sequence[Row], overrides: Sequence[list[str] | None]) -> list[Row]:
    """The rows, each with those of its overrides that not all rows of its arm and data have."""
    shared: dict[tuple[str | None, str | None], set[str]] = {}
    for row, own in zip(rows, overrides, strict=True):
        if own is not None:
            shared[row.arm, row.data] = shared.get((row.arm, row.data), {*own}).intersection(own)
    return [
        replace(row, overrides=" ".join(word for word in own or () if word not in shared[row.arm, row.data]) or None)
        for row, own in zip(rows, overrides, strict=True)
    ]


def _row(directory: Path) -> tuple[Row, list[str] | None]:
    """One run and its overrides, if they are known."""
    log = str(directory / LOG) if (directory / LOG).exists() else None
    path: dict[str, Any] = {"run_id": directory.name, "directory": str(directory), "log": log}
    try:
        status = current_status(directory)
        summary = read_json(directory / SUMMARY) if status.state == FINISHED else {}
    except InputError as error:
        return Row(state=UNKNOWN, reason=str(error), **path), None
    reason = describe_end(summary) or status.reason
    if status.state == QUEUED and status.previous_state is not None:
        reason = f"{status.previous_state} before{f': {reason}' if reason else ''}"
    row = Row(
        arm=summary.get("arm") or status.arm or None,
        data=summary.get("data") or status.data or None,
        seed=summary.get("seed", status.seed),
        state=status.state,
        phase=status.phase or None,
        update=summary.get("updates", status.update),
        updates=status.updates or summary.get("updates", 0),
        loss=_finite(status.loss),
        seconds=_finite(summary.get("wall_seconds", status.seconds)),
        remaining_seconds=_finite(status.remaining),
        error_rate=_finite(summary.get("test", {}).get("error_rate")),
        reason=reason,
        slurm_job=status.slurm_job if status.state in (QUEUED, RUNNING, INTERRUPTED) else None,
        host=status.host or None,
        pid=status.pid or None,
        heartbeat=status.heartbeat if status.pid else None,
        **path,
    )
    return row, _overrides(summary.get("command") or status.command)


def _overrides(command: str) -> list[str] | None:
    """Overrides that can distinguish runs of an arm; None if the command is not known."""
    if not command:
        return None
    try:
        words = shlex.split(command)
    except ValueError:  # an unclosed quotation, which attnspan never writes
        return None
    keys = {word: word.lstrip("+~").partition("=")[0] for word in words if "=" in word and not word.startswith("-")}
    return [word for word, key in keys.items() if key not in _SHOWN_ELSEWHERE and not key.startswith("hydra")]


def _finite(value: Any) -> float | None:
    """The number, or None for NaN and infinity, which JSON lacks."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _remaining(rows: Sequence[Row], directories: Sequence[Path]) -> float | None:
    """Seconds until the running and the queued runs are done, if as many run at once as now."""
    running = [row for row in rows if row.state == RUNNING]
    left: list[float] = []
    times: dict[Path, RunTimes] = {}
    for row, directory in zip(rows, directories, strict=True):
        if row.state not in (RUNNING, QUEUED):
            continue
        whole = None
        above = directory.absolute().parents
        if len(above) > 2:  # <runs_dir>/<data>/<arm>/<run id>
            known = times.setdefault(above[2], RunTimes(above[2]))
            whole = known.expected(data=row.data or "", arm=row.arm or "", updates=row.updates)
        seconds = row.remaining_seconds
        if seconds is None and whole is not None:
            seconds = whole * (1 - min(1.0, row.update / row.updates if row.updates else 0.0))
        if seconds is None:
            return None
        left.append(seconds)
    return makespan(sorted(left, reverse=True), len(running)) if left else None
