"""The jobs of a sweep as one array of SLURM's: submitted, watched, and missed when they are gone.

Files tell how a run is getting on, ``squeue`` whether SLURM still has its job, and ``scontrol`` how that ended. None of
them needs SLURM's accounting, without which ``sacct`` fails and submitit waits for a job that was killed for ever.
"""

from __future__ import annotations

import getpass
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from attnspan.errors import InputError, nearest
from attnspan.progress import ProgressDisplay
from attnspan.rundir import is_finished
from attnspan.slurm_job import RunJob
from attnspan.status import FAILED, FINISHED, INTERRUPTED, QUEUED, RUNNING, read_status
from attnspan.sweep import ELSEWHERE, NOT_STARTED, Job, readable

if TYPE_CHECKING:
    import submitit

_LOOK = 2.0  # seconds between two looks at the queue
_ABSENT = 2  # looks without a job in the queue, after which it is gone
_PATIENCE = 120.0  # seconds that cancelled jobs have to be gone
_REQUEUE = {"requeue": True}  # on clusters too where a job must say so

_WORDS = {
    "CANCELLED": "its job was cancelled",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "out of memory; more hydra.launcher.mem_gb may help",
    "PREEMPTED": "its job was preempted, and this cluster does not put it back",
    "TIMEOUT": "its time was up; more hydra.launcher.timeout_min may help",
}
"""SLURM's states of a job that has ended before its run, for people."""
_INTERRUPTED = ("CANCELLED", "PREEMPTED", "TIMEOUT")
_EXIT_UNDER_WAY = "75:0"

_EVERYWHERE = {
    "cpus_per_task",
    "gpus_per_node",
    "mem_gb",
    "name",
    "nodes",
    "stderr_to_stdout",
    "tasks_per_node",
    "timeout_min",
}
"""Parameters that submitit has for every kind of cluster; the others are called ``slurm_...`` there."""


def run_array(
    jobs: Sequence[Job],
    *,
    name: str,
    folder: str,
    sbatch: Mapping[str, Any],
    max_num_timeout: int,
    at_a_time: int,
    cpus: int,
    threads: int,
    fail_fast: bool,
    console: Console,
) -> None:
    """Submit all jobs that have no outcome yet, wait until they are gone, and fill in how each ended.

    Ctrl-C, or SIGTERM, cancels them, whereupon their runs write checkpoints, and comes back as KeyboardInterrupt.

    Args:
        jobs: of the sweep.
        name: of the array.
        folder: for submitit's files, with ``%j`` for a job's id.
        sbatch: parameters of submitit's executor, as far as they are not among these arguments.
        max_num_timeout: how often a job that came to its time limit is put back.
        at_a_time: most jobs at once.
        cpus: of each job.
        threads: of each run.
        fail_fast: after the first job that fails, cancel the others.
        console: for progress.

    Raises:
        InputError: SLURM does not take them, or submitit is not installed.
    """
    with ProgressDisplay(console=console, jobs=len(jobs), at_a_time=min(at_a_time, len(jobs))) as display:
        for job in jobs:
            if job.outcome:
                display.end(job.label, f"{job.outcome}, skipped")
        waiting = [job for job in jobs if not job.outcome]
        if not waiting:
            return
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        tasks = _Tasks()
        try:
            tasks.submit(
                waiting,
                folder=folder,
                max_num_timeout=max_num_timeout,
                threads=threads,
                parameters={
                    **sbatch,
                    "name": name,
                    "array_parallelism": at_a_time,
                    "cpus_per_task": cpus,
                    "srun_args": [f"--cpus-per-task={cpus}"],  # which a step does not take over from its job
                    "additional_parameters": _REQUEUE | dict(sbatch.get("additional_parameters", {})),
                },
            )
            display.say(f"submitted to SLURM: {', '.join(tasks.names)}")
            while tasks.left:
                time.sleep(_LOOK)
                if FAILED in tasks.look(display) and fail_fast:
                    display.say("fail_fast=true: the other jobs are cancelled")
                    tasks.cancel(display)
        except BaseException:
            tasks.cancel(display)
            raise
        finally:
            signal.signal(signal.SIGTERM, before)


class _Tasks:
    """The jobs of the sweep that SLURM has, each by its id in the array."""

    def __init__(self) -> None:
        self.left: dict[str, Job] = {}
        self._absent: dict[str, int] = {}
        self._submitted: dict[str, submitit.Job[None]] = {}

    @property
    def names(self) -> list[str]:
        """What ``scancel`` takes: the array, or the only job."""
        return sorted({name.partition("_")[0] for name in self._submitted})

    def submit(
        self,
        jobs: Sequence[Job],
        *,
        folder: str,
        max_num_timeout: int,
        threads: int,
        parameters: Mapping[str, Any],
    ) -> None:
        """Hand over the jobs.

        Raises:
            InputError: SLURM does not take them, or submitit is not installed.
        """
        try:
            from submitit import AutoExecutor
            from submitit.core.utils import FailedJobError, FailedSubmissionError
        except ImportError as error:
            raise InputError(
                "hydra/launcher=submitit_slurm: submitit is not installed: pip install 'attnspan[slurm]'"
            ) from error
        try:
            executor = AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=max_num_timeout)
            executor.update_parameters(
                **{
                    key if key in _EVERYWHERE else f"slurm_{key}": value
                    for key, value in parameters.items()
                    if value is not None
                }
            )
            submitted = executor.map_array(RunJob(), jobs, [threads] * len(jobs))
        except NameError as error:  # its first line: Unknown argument 'x' for ... Valid arguments: a, b
            what, _, valid = str(error).partition("\n")[0].partition(" Valid arguments: ")
            key = what.split("'")[1] if "'" in what else what
            hint = nearest(key, {*_EVERYWHERE, *filter(None, valid.split(", "))})
            raise InputError(f"hydra.launcher.{key}: submitit does not know it; {hint}") from error
        except (AssertionError, FailedJobError, FailedSubmissionError, RuntimeError, TypeError, ValueError) as error:
            *_, words = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f"hydra/launcher=submitit_slurm: {words}") from error
        self._submitted = {one.job_id: one for one in submitted}
        self.left = dict(zip(self._submitted, jobs, strict=True))

    def look(self, display: ProgressDisplay) -> set[str]:
        """Show how the jobs are getting on, and fill in how those ended that are gone; the outcomes of these."""
        queue = _queue()
        ended = set()
        for name, job in list(self.left.items() if queue is not None else ()):
            assert queue is not None
            status = read_status(job.directory)
            if name not in queue:
                self._absent[name] = self._absent.get(name, 0) + 1
                if self._absent[name] >= _ABSENT:
                    ended.add(self._end(name, display))
                continue
            self._absent[name] = 0
            if status is None:
                continue
            if status.state == RUNNING and queue[name] == "RUNNING":
                display.show(job.label, status)
            elif status.state in (RUNNING, INTERRUPTED) and queue[name] == "PENDING":
                display.say(f"{job.label}: put back into SLURM's queue at update {status.update}")
                back = replace(status, state=QUEUED, phase="", remaining=None, reason="put back by SLURM")
                replace(back, host=socket.gethostname(), pid=os.getpid()).write(job.directory)
        return ended

    def cancel(self, display: ProgressDisplay) -> None:
        """Cancel the jobs, whose runs write checkpoints, and wait until they are gone."""
        if not self.left:
            return
        subprocess.run(["scancel", *self.left], capture_output=True, check=False)
        deadline = time.monotonic() + _PATIENCE
        while self.left and time.monotonic() < deadline:
            time.sleep(_LOOK)
            self.look(display)

    def _end(self, name: str, display: ProgressDisplay) -> str:
        job, record = self.left.pop(name), _record(name)
        status = read_status(job.directory)
        exit_code, state = record.get("ExitCode"), record.get("JobState", "UNKNOWN")
        if is_finished(job.directory) and exit_code in (None, "0:0"):
            job.outcome, job.reason = FINISHED, ""
            job.seconds = status.seconds if status is not None else None
        elif exit_code == _EXIT_UNDER_WAY:
            job.outcome, job.reason = ELSEWHERE, "another process was at work on it"
        elif status is not None and status.state in (FAILED, INTERRUPTED):
            job.outcome, job.reason, job.seconds = status.state, status.reason or "", status.seconds
        elif status is not None and status.state == QUEUED and state == "CANCELLED":
            job.outcome, job.reason = NOT_STARTED, ""
        else:
            job.outcome = INTERRUPTED if state in _INTERRUPTED else FAILED
            log = readable(Path(self._submitted[name].paths.stderr))
            job.reason = f"{_WORDS.get(state, f'its job is gone, and SLURM says {state}')}; {log}"
        if status is not None and status.state in (QUEUED, RUNNING) and job.outcome not in (FINISHED, ELSEWHERE):
            state = INTERRUPTED if job.outcome == NOT_STARTED else job.outcome
            reason = job.reason or "its sweep ended before it began"
            with suppress(InputError):
                replace(status, state=state, phase="", remaining=None, reason=reason).write(job.directory)
        why = f" ({job.reason})" if job.reason else ""
        display.end(job.label, f"{job.outcome}{why}", seconds=job.seconds)
        return job.outcome


def _queue() -> dict[str, str] | None:
    """The ids of our jobs that are not over, and their states; None where SLURM does not answer just now."""
    columns = ["--noheader", "--array", "--format=%i %T"]
    asked = subprocess.run(
        ["squeue", f"--user={getpass.getuser()}", *columns], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        return None
    return dict(line.split() for line in asked.stdout.splitlines() if line.strip())


def _record(name: str) -> dict[str, str]:
    """What SLURM remembers of a job that is over; nothing after some minutes."""
    asked = subprocess.run(["scontrol", "--oneliner", "show", "job", name], capture_output=True, text=True, check=False)
    lines = asked.stdout.splitlines() or [""]
    return dict(word.split("=", 1) for word in lines[0].split() if "=" in word)
