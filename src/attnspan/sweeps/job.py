"""A job: one run of a sweep, as it was when the sweep was launched.

``job.yaml`` in the run directory holds it until the run is finished. The run's process reads its config from there, so
no file that is edited meanwhile can change the run.

===========  ==========================================================================================
``command``  command line that starts the run alone, for people
``code``     state of the code when the sweep was launched, see :mod:`attnspan.runs.provenance`
``config``   resolved config
===========  ==========================================================================================
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from attnspan.errors import InputError
from attnspan.files import write_text
from attnspan.runs.layout import JOB
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


@dataclass(kw_only=True)
class Job:
    """One run of a sweep.

    Attributes:
        config: resolved config of the run.
        directory: of the run.
        command: command line that starts the run alone, for people.
        code: state of the code when the sweep was launched.
        varied: overrides in which jobs of the sweep differ, other than arm and seed.
        arguments: command line that starts the run's process; null for one that reads ``job.yaml``.
        outcome: how it ended; empty until then.
        reason: why it failed, one line.
        seconds: how long it took.
        slurm_job: id of its SLURM job in the array, if it has one.
        process: that carries it out, once started here.
        started: when that was, by the monotonic clock.
    """

    config: Mapping[str, Any]
    directory: Path
    command: str
    code: Mapping[str, str | None] = field(default_factory=dict)
    varied: str = ""
    arguments: list[str] = field(default_factory=list)
    outcome: str = ""
    reason: str = ""
    seconds: float | None = None
    slurm_job: str | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    started: float = 0.0

    def __post_init__(self) -> None:
        if not self.arguments:
            self.arguments = [sys.executable, "-m", "attnspan.cli.job", str(self.directory)]

    @property
    def arm(self) -> str:
        """Arm of the run."""
        return self.config["arm"]

    @property
    def data(self) -> str:
        """Name of the run's data."""
        return self.config["data_name"]

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.config["seed"]

    @property
    def updates(self) -> int:
        """Updates of the run."""
        return self.config["trainer"]["max_steps"]

    @property
    def label(self) -> str:
        """Tells it from the other jobs, for people."""
        return " ".join(word for word in (self.arm, f"seed {self.seed}", self.varied) if word)

    def status(self, state: str, *, phase: str = "", reason: str | None = None) -> Status:
        """A status for the run. Updates and loss stay as its status file has them."""
        last = read_status(self.directory) or Status()
        pid = self.process.pid if self.process else os.getpid()
        return Status(
            state=state,
            phase=phase,
            update=last.update,
            updates=self.updates,
            loss=last.loss,
            reason=reason,
            arm=self.arm,
            data=self.data,
            seed=self.seed,
            command=self.command,
            slurm_job=self.slurm_job,
            pid=pid,
            process_start=process_start_time(pid),
        )

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
        """Write ``job.yaml``.

        Raises:
            InputError: it cannot be written.
        """
        content = {"command": self.command, "code": dict(self.code), "config": dict(self.config)}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_text(self.directory / JOB, text, durable=False)


class FrozenJob(NamedTuple):
    """What ``job.yaml`` holds."""

    command: str
    code: dict[str, str | None]
    config: dict[str, Any]


def read_job(directory: Path) -> FrozenJob:
    """Read ``job.yaml``.

    Raises:
        InputError: it is missing or damaged.
    """
    path = directory / JOB
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return FrozenJob(**content)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; the command that launched the sweep writes it") from error
    except (yaml.YAMLError, TypeError, ValueError, OSError) as error:
        raise InputError(f"{path}: not readable as a job ({str(error).splitlines()[0]})") from error


def remove_job(directory: Path) -> None:
    """Remove the ``job.yaml`` of a run that is finished."""
    (directory / JOB).unlink(missing_ok=True)
