"""The jobs of a sweep as one array of SLURM's: submitted, watched, and missed when they are gone.

Files tell how a run is getting on, ``squeue`` whether SLURM still has its job, and ``scontrol`` how that ended. None of
them needs SLURM's accounting, without which ``sacct`` fails and submitit waits for a job that was killed for ever.
"""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console

from attnspan.errors import InputError, nearest
from attnspan.runs.completeness import is_finished
from attnspan.runs.status import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    QUEUED,
    RUNNING,
    Status,
    dequeued,
    process_start_time,
    read_status,
    update_status,
)
from attnspan.sweeps.processes import ELSEWHERE, NOT_STARTED, SKIPPED, Job, is_under_way, readable, settle
from attnspan.sweeps.progress import ProgressDisplay
from attnspan.sweeps.slurm_job import RunJob
from attnspan.training.signals import interrupt_on_end

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
_NO_REASON = ("None", "(null)")

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
    n_jobs: int,
    cpus: int,
    threads: int,
    fail_fast: bool,
    console: Console,
) -> None:
    """Submit all jobs that have no outcome yet, wait until they are gone, and fill in how each ended.

    What another process is at work on, or what SLURM has already from an earlier command, is not submitted but waited
    for. Ctrl-C, SIGTERM or SIGHUP cancels what was submitted here, whereupon the runs write checkpoints, and comes back
    as KeyboardInterrupt.

    Args:
        jobs: of the sweep.
        name: of the array.
        folder: for submitit's files, with ``%j`` for a job's id.
        sbatch: parameters of submitit's executor, as far as they are not among these arguments.
        max_num_timeout: how often a job that came to its time limit is put back.
        n_jobs: most jobs at once.
        cpus: of each job.
        threads: of each run.
        fail_fast: after the first job that fails, cancel the others.
        console: for progress.

    Raises:
        InputError: SLURM does not take them, or submitit is not installed.
    """
    with ProgressDisplay(console=console, jobs=len(jobs), n_jobs=min(n_jobs, len(jobs))) as display:
        for job in jobs:
            if job.outcome:
                display.end(job.label, f"{job.outcome}, skipped")
        waiting = [job for job in jobs if not job.outcome]
        if not waiting:
            return
        listen_no_more = interrupt_on_end()
        tasks = _Tasks()
        try:
            if ours := tasks.leave_to_others(waiting, display):
                tasks.submit(
                    ours,
                    folder=folder,
                    max_num_timeout=max_num_timeout,
                    threads=threads,
                    parameters={
                        **sbatch,
                        "name": name,
                        "array_parallelism": n_jobs,
                        "cpus_per_task": cpus,
                        "srun_args": [f"--cpus-per-task={cpus}"],  # which a step does not take over from its job
                        "additional_parameters": _REQUEUE | dict(sbatch.get("additional_parameters", {})),
                    },
                )
                display.say(f"submitted to SLURM: {', '.join(tasks.names)}")
            while tasks.left or tasks.elsewhere:
                time.sleep(_LOOK)
                if FAILED in tasks.poll(display) and fail_fast:
                    display.say("fail_fast=true: the other jobs are cancelled")
                    tasks.cancel(display)
                    break
        except BaseException:
            tasks.cancel(display)
            raise
        finally:
            listen_no_more()
            for job in tasks.elsewhere:
                job.outcome = ELSEWHERE


class _Tasks:
    """The jobs of the sweep that are not over.

    Attributes:
        left: those that were submitted here, by their ids in the array.
        elsewhere: those that others are at work on, or that SLURM has from another command.
    """

    def __init__(self) -> None:
        self.left: dict[str, Job] = {}
        self.elsewhere: list[Job] = []
        self._absent: dict[str, int] = {}
        self._submitted: dict[str, submitit.Job[None]] = {}
        self._why_pending: list[str] = []

    @property
    def names(self) -> list[str]:
        """What ``scancel`` takes: the array, or the only job."""
        return sorted({name.partition("_")[0] for name in self._submitted})

    def leave_to_others(self, jobs: Sequence[Job], display: ProgressDisplay) -> list[Job]:
        """Tell jobs that others are at work on from those that are to be submitted; the latter."""
        queue = _queue() or {}
        ours = []
        for job in jobs:
            if _is_elsewhere(job, queue):
                self._leave(job, display)
            else:
                ours.append(job)
        return ours

    def _leave(self, job: Job, display: ProgressDisplay) -> None:
        status = read_status(job.directory) or Status(host="", pid=0)
        job.slurm_job = status.slurm_job
        job.reason = f"SLURM's job {status.slurm_job}" if status.slurm_job else f"process {status.pid} on {status.host}"
        display.say(f"{job.label}: {ELSEWHERE}, {job.reason}; this sweep waits for it")
        self.elsewhere.append(job)

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
        for name, job in self.left.items():
            job.slurm_job = name
            # Not if the job was quicker, and has begun.
            update_status(job.directory, lambda status, name=name: _with_job(status, name))  # type: ignore[misc]

    def poll(self, display: ProgressDisplay) -> set[str]:
        """Show how the jobs are getting on, and fill in how those ended that are gone; the outcomes of these."""
        queue = _queue()
        if queue is None:
            return set()
        self._say_why_pending(queue, display)
        ended = set()
        for job in list(self.elsewhere):
            status = read_status(job.directory)
            if self._is_gone(str(job.directory), still_there=_is_elsewhere(job, queue)):
                self.elsewhere.remove(job)
                ended.add(_end_elsewhere(job, display))
            elif status is not None and status.state == RUNNING:
                display.show(job.label, status)
        for name, job in list(self.left.items()):
            status = read_status(job.directory)
            if self._is_gone(name, still_there=name in queue):
                ended.add(self._end(name, display))
            elif name not in queue or status is None:
                continue
            elif status.state == RUNNING and queue[name].state == "RUNNING":
                display.show(job.label, status)
            elif queue[name].state == "PENDING" and _put_back(job, name):
                display.say(f"{job.label}: put back into SLURM's queue at update {status.update}")
        return ended

    def _is_gone(self, name: str, *, still_there: bool) -> bool:
        self._absent[name] = 0 if still_there else self._absent.get(name, 0) + 1
        return self._absent[name] >= _ABSENT

    def _say_why_pending(self, queue: Mapping[str, _Place], display: ProgressDisplay) -> None:
        """Say why SLURM lets jobs wait, as often as that is something else."""
        names = [*self.left, *(job.slurm_job for job in self.elsewhere if job.slurm_job is not None)]
        pending = [queue[name] for name in names if name in queue and queue[name].state == "PENDING"]
        why = sorted({place.reason for place in pending} - {*_NO_REASON})
        if why and why != self._why_pending:
            display.say(f"{len(pending)} of {len(names)} jobs wait in SLURM's queue: {', '.join(why)}")
            self._why_pending = why

    def cancel(self, display: ProgressDisplay) -> None:
        """Cancel the jobs, whose runs write checkpoints, and wait until they are gone."""
        if not self.left:
            return
        subprocess.run(["scancel", *self.left], capture_output=True, check=False)
        deadline = time.monotonic() + _PATIENCE
        while self.left and time.monotonic() < deadline:
            time.sleep(_LOOK)
            self.poll(display)

    def _end(self, name: str, display: ProgressDisplay) -> str:
        job, record = self.left.pop(name), _record(name)
        status = read_status(job.directory)
        exit_code, state = record.get("ExitCode"), record.get("JobState", "UNKNOWN")
        if exit_code == _EXIT_UNDER_WAY:  # when it came to it, another process was at work on the run
            self._leave(job, display)
            return ELSEWHERE
        if status is not None and status.state == QUEUED and state == "CANCELLED":
            job.outcome, job.reason = NOT_STARTED, ""
        elif is_finished(job.directory) and exit_code in (None, "0:0"):
            job.outcome, job.reason = FINISHED, ""
            job.seconds = status.seconds if status is not None else None
        elif status is not None and status.state in (FAILED, INTERRUPTED):
            job.outcome, job.reason, job.seconds = status.state, status.reason or "", status.seconds
        else:
            job.outcome = INTERRUPTED if state in _INTERRUPTED else FAILED
            log = readable(Path(self._submitted[name].paths.stderr))
            job.reason = f"{_WORDS.get(state, f'its job is gone, and SLURM says {state}')}; {log}"
        if job.outcome != FINISHED:
            with suppress(InputError):
                update_status(job.directory, lambda status: _without_job(status, job))
        _say_end(job, display)
        return job.outcome


def _put_back(job: Job, name: str) -> bool:
    """Put a run whose job SLURM has put back on our list; False if it is there already, or is at work."""
    status = read_status(job.directory)
    if status is None or status.state not in (RUNNING, INTERRUPTED):
        return False
    back = replace(
        status, state=QUEUED, phase="", remaining=None, previous_state=INTERRUPTED, reason="put back by SLURM"
    )
    pid = os.getpid()
    back = replace(back, slurm_job=name, host=socket.gethostname(), pid=pid, process_start=process_start_time(pid))
    return update_status(job.directory, lambda status: back)


def _without_job(status: Status | None, job: Job) -> Status | None:
    """The status of a run that SLURM has no more, and that did not finish."""
    if status is None:
        return None
    if job.outcome == NOT_STARTED:
        status = dequeued(status, "its sweep ended before it began")
    elif status.state in (QUEUED, RUNNING):
        status = replace(status, state=job.outcome, phase="", remaining=None, reason=job.reason)
    return replace(status, previous_state=None, slurm_job=None)


def _with_job(status: Status | None, name: str) -> Status | None:
    """The status of a run that we have queued, and that SLURM has now."""
    is_queued_here = status is not None and status.state == QUEUED and status.is_own
    return replace(status, slurm_job=name) if status is not None and is_queued_here else None


def _is_elsewhere(job: Job, queue: Mapping[str, _Place]) -> bool:
    """Whether another process is at work on the run, or SLURM has a job for it that was submitted before."""
    status = read_status(job.directory)
    return is_under_way(job) or (status is not None and status.slurm_job in queue)


def _end_elsewhere(job: Job, display: ProgressDisplay) -> str:
    if is_finished(job.directory):
        job.outcome, job.reason = SKIPPED, ""
    else:
        settle([job])
    _say_end(job, display)
    return job.outcome


def _say_end(job: Job, display: ProgressDisplay) -> None:
    why = f" ({job.reason})" if job.reason else ""
    display.end(job.label, f"{job.outcome}{why}", seconds=job.seconds)


class _Place(NamedTuple):
    """What ``squeue`` says of a job, and why it does not run yet."""

    state: str
    reason: str = _NO_REASON[0]


def _queue() -> dict[str, _Place] | None:
    """Our jobs that are not over, by their ids; None where SLURM does not answer just now."""
    columns = ["--noheader", "--array", "--format=%i %T %r"]
    asked = subprocess.run(
        ["squeue", f"--user={getpass.getuser()}", *columns], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        return None
    lines = (line.split(maxsplit=2) for line in asked.stdout.splitlines() if line.strip())
    return {name: _Place(state, *reason) for name, state, *reason in lines}


def _record(name: str) -> dict[str, str]:
    """What SLURM remembers of a job that is over; nothing after some minutes."""
    asked = subprocess.run(["scontrol", "--oneliner", "show", "job", name], capture_output=True, text=True, check=False)
    lines = asked.stdout.splitlines() or [""]
    return dict(word.split("=", 1) for word in lines[0].split() if "=" in word)
