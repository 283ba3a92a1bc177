"""A job: one run of a sweep, as it was when the sweep was launched.

``job.yaml`` in the run directory holds its command, code, config and the fingerprint of its data until the run is
finished, and ``own_code/`` holds the user's source files. The run's process reads them there, and the prepared data in
the cache, so no file that is edited meanwhile can change the run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from attnspan.errors import InputError
from attnspan.files import write_text
from attnspan.runs.layout import JOB, LOG
from attnspan.runs.own_code import keep_own_code
from attnspan.runs.status import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    QUEUED,
    Status,
    current_status,
    process_start_time,
    read_status,
)

SKIPPED = "finished before"
NOT_STARTED = "not started"
RUNNING_ELSEWHERE = "running elsewhere"
SUCCESSFUL = (FINISHED, SKIPPED)


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """How to run the jobs of a sweep."""

    n_jobs: int  # most jobs at once
    threads: int  # CPU threads of each
    rerun: bool = False  # compute finished runs again
    fail_fast: bool = False  # after the first failure, stop the running jobs and start no other


@dataclass(kw_only=True)
class Job:
    """One run of a sweep."""

    config: Mapping[str, Any]  # resolved config of the run
    directory: Path
    command: str  # starts the run alone, for people
    data_fingerprint: str | None = None  # of the data when the sweep was launched
    code: Mapping[str, str | None] = field(default_factory=dict)  # code_state() when the sweep was launched
    varied: str = ""  # overrides in which jobs of the sweep differ, other than arm and seed
    arguments: list[str] = field(default_factory=list)  # start the run's process; by default one that reads job.yaml
    outcome: str = ""  # how it ended; empty until then
    reason: str = ""  # why it failed, one line
    seconds: float | None = None  # how long it took
    slurm_job: str | None = None  # id of its SLURM job in the array, if it has one
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)  # once started here
    started: float = 0.0  # when that was, by the monotonic clock
    arm: str = field(init=False)
    data: str = field(init=False)
    seed: int = field(init=False)
    updates: int = field(init=False)

    def __post_init__(self) -> None:
        self.arm, self.data, self.seed = (self.config[key] for key in ("arm", "data_name", "seed"))
        self.updates = self.config["trainer"]["max_steps"]
        if not self.arguments:
            self.arguments = [sys.executable, "-m", "attnspan.cli.job", str(self.directory)]

    @property
    def label(self) -> str:
        """Distinguishes it from the other jobs, for people."""
        return " ".join(word for word in (self.arm, f"seed {self.seed}", self.varied) if word)

    @property
    def log(self) -> Path | None:
        """Where its process's output is, if it has printed any."""
        return path if (path := self.directory / LOG).exists() else None

    def status(self, state: str, *, phase: str = "", reason: str | None = None) -> Status:
        """A status for the run. Updates and loss stay as its status file has them."""
        last = read_status(self.directory) or Status()
        pid = self.process.pid if self.process else os.getpid()
        own: dict[str, Any] = {
            name: getattr(self, name) for name in ("arm", "data", "seed", "command", "updates", "slurm_job")
        }
        own |= {"pid": pid, "process_start": process_start_time(pid)}
        return Status(state=state, phase=phase, reason=reason, update=last.update, loss=last.loss, **own)

    def queued_status(self) -> Status:
        """The status of the run while it is queued; it keeps how the run had ended before."""
        status = self.status(QUEUED)
        with suppress(InputError):
            last = current_status(self.directory)
            status.slurm_job = last.slurm_job
            if last.state in (FINISHED, FAILED, INTERRUPTED):
                status.previous_state, status.seconds = last.state, last.seconds
                status.reason, status.traceback = last.reason, last.traceback
        return status

    def write(self) -> None:
        """Write ``job.yaml``, and a copy of the user's own code that the run needs; raises InputError if it cannot."""
        keep_own_code(self.config, self.directory)
        content: dict[str, Any] = {"command": self.command, "data_fingerprint": self.data_fingerprint}
        content |= {"code": dict(self.code), "config": dict(self.config)}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_text(self.directory / JOB, text, durable=False)


def read_job(directory: Path) -> Job:
    """Read ``job.yaml``; raises InputError if it is missing or damaged."""
    path = directory / JOB
    try:
        return Job(directory=directory, **yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; the command that launched the sweep writes it") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(f"{path}: not readable as a job ({str(error).splitlines()[0]})") from error


def remove_job(directory: Path) -> None:
    """Remove the ``job.yaml`` of a run that is finished."""
    (directory / JOB).unlink(missing_ok=True)
