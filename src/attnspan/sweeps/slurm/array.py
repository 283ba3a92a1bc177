"""Runs the jobs of a sweep as one SLURM array: submits it, watches it, and notices when a job is gone.

Status files tell how a run is progressing, ``squeue`` whether SLURM still has its job, and ``scontrol`` how the job
ended. None of these needs SLURM's accounting. Without accounting ``sacct`` fails, and submitit alone would wait forever
for a job that was killed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    read_status,
    update_status,
)
from attnspan.sweeps.job import NOT_STARTED, RUNNING_ELSEWHERE, SKIPPED, Job, SweepOptions
from attnspan.sweeps.outcomes import short_path, show_outcome, show_skipped
from attnspan.sweeps.progress import ProgressDisplay
from attnspan.sweeps.queue import NEVER_STARTED, in_own_queue, is_running, resolve_outcomes
from attnspan.sweeps.slurm import commands
from attnspan.sweeps.slurm.commands import NO_REASON, QueueEntry
from attnspan.sweeps.slurm.job import RunJob
from attnspan.training.signals import interrupt_on_termination

if TYPE_CHECKING:
    import submitit

_POLL_INTERVAL = 2.0  # seconds
_POLLS_ABSENT = 2  # polls without a job in the queue, after which it counts as gone
_CANCEL_TIMEOUT = 120.0  # seconds

_REASONS = {
    "CANCELLED": "its job was cancelled",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "out of memory; more hydra.launcher.mem_gb may help",
    "PREEMPTED": "its job was preempted, and this cluster does not requeue it",
    "TIMEOUT": "its time was up; more hydra.launcher.timeout_min may help",
}
"""SLURM's states of a job that ended before its run did, for people."""
_INTERRUPTED = ("CANCELLED", "PREEMPTED", "TIMEOUT")
_EXIT_RUNNING_ELSEWHERE = "75:0"

_COMMON_PARAMETERS = {
    "cpus_per_task",
    "gpus_per_node",
    "mem_gb",
    "name",
    "nodes",
    "stderr_to_stdout",
    "tasks_per_node",
    "timeout_min",
}
"""Parameters that submitit has for every kind of cluster; it calls the others ``slurm_...``."""


def run_array(
    jobs: Sequence[Job],
    options: SweepOptions,
    console: Console,
    *,
    folder: str,
    max_num_timeout: int,
    parameters: Mapping[str, Any],
) -> None:
    """Submit all jobs that have no outcome yet, wait until they have ended, and fill in how.

    A run that another process is working on, or that SLURM has from an earlier command, is not submitted but waited
    for. Ctrl-C, SIGTERM or SIGHUP cancels the submitted jobs, whose runs then write checkpoints, and raises
    KeyboardInterrupt.

    ``folder``, ``max_num_timeout`` and ``parameters`` are those of submitit's executor.

    Raises:
        InputError: SLURM does not accept the jobs, or submitit is not installed.
    """
    with ProgressDisplay(console=console, jobs=len(jobs), n_jobs=min(options.n_jobs, len(jobs))) as display:
        waiting = show_skipped(jobs, display)
        if not waiting:
            return
        restore_handlers = interrupt_on_termination()
        array = _Array(display)
        try:
            if own := array.leave_to_others(waiting):
                executor = _executor(folder, max_num_timeout, {**parameters, "array_parallelism": options.n_jobs})
                array.submit(executor, own, options.threads)
            while array.submitted or array.elsewhere:
                time.sleep(_POLL_INTERVAL)
                if FAILED in array.poll() and options.fail_fast:
                    display.log("fail_fast=true: the other jobs are cancelled")
                    array.cancel()
                    break
        except BaseException:
            array.cancel()
            raise
        finally:
            restore_handlers()
            for job in array.elsewhere:
                job.outcome = RUNNING_ELSEWHERE


def _executor(folder: str, max_num_timeout: int, parameters: Mapping[str, Any]) -> submitit.AutoExecutor:
    """Make submitit's executor; raises InputError if submitit is not installed or does not know a parameter."""
    try:
        from submitit import AutoExecutor
    except ImportError as error:
        raise InputError(
            "hydra/launcher=submitit_slurm: submitit is not installed: pip install 'attnspan[slurm]'"
        ) from error
    named = {key if key in _COMMON_PARAMETERS else f"slurm_{key}": value for key, value in parameters.items()}
    try:
        executor = AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=max_num_timeout)
        executor.update_parameters(**{key: value for key, value in named.items() if value is not None})
    except NameError as error:  # its first line: Unknown argument 'x' for ... Valid arguments: a, b
        what, _, valid = str(error).partition("\n")[0].partition(" Valid arguments: ")
        key = what.split("'")[1] if "'" in what else what
        hint = nearest(key, {*_COMMON_PARAMETERS, *filter(None, valid.split(", "))})
        raise InputError(f"hydra.launcher.{key}: submitit does not know it; {hint}") from error
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise _refused(error) from error
    return executor


def _refused(error: Exception) -> InputError:
    *_, line = str(error).strip().splitlines() or [type(error).__name__]
    return InputError(f"hydra/launcher=submitit_slurm: {line}")


class _Array:
    """The jobs of the sweep that have not ended."""

    def __init__(self, display: ProgressDisplay) -> None:
        self.submitted: dict[str, Job] = {}  # by this process, by their ids in the array
        self.elsewhere: list[Job] = []  # running in other processes, or in SLURM's queue from another command
        self._display = display
        self._polls_absent: dict[str, int] = {}
        self._logs: dict[str, Path] = {}
        self._pending_reasons: list[str] = []

    def leave_to_others(self, jobs: Sequence[Job]) -> list[Job]:
        """Wait for the jobs that others work on, and return those to submit."""
        queue = commands.queue() or {}
        own = []
        for job in jobs:
            if _is_elsewhere(job, queue):
                self._leave(job)
            else:
                own.append(job)
        return own

    def _leave(self, job: Job) -> None:
        status = read_status(job.directory) or Status(host="", pid=0)
        job.slurm_job = status.slurm_job
        job.reason = f"SLURM job {status.slurm_job}" if status.slurm_job else f"process {status.pid} on {status.host}"
        self._display.log(f"{job.label}: {RUNNING_ELSEWHERE}, {job.reason}; this sweep waits for it")
        self.elsewhere.append(job)

    def submit(self, executor: submitit.AutoExecutor, jobs: Sequence[Job], threads: int) -> None:
        """Submit the jobs as one array; raises InputError if SLURM does not accept them."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            submitted = executor.map_array(RunJob(), jobs, [threads] * len(jobs))
        except (AssertionError, FailedJobError, FailedSubmissionError, RuntimeError, TypeError, ValueError) as error:
            raise _refused(error) from error
        self._logs = {one.job_id: Path(one.paths.stderr) for one in submitted}
        self.submitted = dict(zip(self._logs, jobs, strict=True))
        for name, job in self.submitted.items():
            job.slurm_job = name
            # Not if the job has started already.
            update_status(job.directory, lambda status, name=name: _with_slurm_job(status, name))  # type: ignore[misc]
        arrays = sorted({name.partition("_")[0] for name in self.submitted})  # what scancel takes
        self._display.log(f"submitted to SLURM: {', '.join(arrays)}")

    def poll(self) -> set[str]:
        """Show progress, fill in how the jobs ended that are gone, and return the outcomes of these."""
        queue = commands.queue()
        if queue is None:
            return set()
        self._show_pending_reasons(queue)
        return {*self._poll_elsewhere(queue), *self._poll_submitted(queue)}

    def _poll_elsewhere(self, queue: Mapping[str, QueueEntry]) -> set[str]:
        outcomes = set()
        for job in list(self.elsewhere):
            status = read_status(job.directory)
            if self._is_gone(str(job.directory), is_present=_is_elsewhere(job, queue)):
                self.elsewhere.remove(job)
                _end_elsewhere(job)
                show_outcome(job, self._display)
                outcomes.add(job.outcome)
            elif status is not None and status.state == RUNNING:
                self._display.update(job.label, status)
        return outcomes

    def _poll_submitted(self, queue: Mapping[str, QueueEntry]) -> set[str]:
        outcomes = set()
        for name, job in list(self.submitted.items()):
            status = read_status(job.directory)
            if self._is_gone(name, is_present=name in queue):
                outcomes.add(self._end(name))
            elif name not in queue or status is None:
                continue
            elif status.state == RUNNING and queue[name].state == "RUNNING":
                self._display.update(job.label, status)
            elif queue[name].state == "PENDING" and _mark_requeued(job, name):
                self._display.log(f"{job.label}: requeued by SLURM at update {status.update}")
        return outcomes

    def _is_gone(self, name: str, *, is_present: bool) -> bool:
        self._polls_absent[name] = 0 if is_present else self._polls_absent.get(name, 0) + 1
        return self._polls_absent[name] >= _POLLS_ABSENT

    def _show_pending_reasons(self, queue: Mapping[str, QueueEntry]) -> None:
        """Say why jobs are pending, when the reasons change."""
        names = [*self.submitted, *(job.slurm_job for job in self.elsewhere if job.slurm_job is not None)]
        pending = [queue[name] for name in names if name in queue and queue[name].state == "PENDING"]
        reasons = sorted({entry.reason for entry in pending} - {*NO_REASON})
        if reasons and reasons != self._pending_reasons:
            self._display.log(f"{len(pending)} of {len(names)} jobs wait in SLURM's queue: {', '.join(reasons)}")
            self._pending_reasons = reasons

    def cancel(self) -> None:
        """Cancel the submitted jobs, whose runs then write checkpoints, and wait until they are gone."""
        if not self.submitted:
            return
        commands.cancel(self.submitted)
        deadline = time.monotonic() + _CANCEL_TIMEOUT
        while self.submitted and time.monotonic() < deadline:
            time.sleep(_POLL_INTERVAL)
            self.poll()

    def _end(self, name: str) -> str:
        job, record = self.submitted.pop(name), commands.job_record(name)
        if record.get("ExitCode") == _EXIT_RUNNING_ELSEWHERE:  # it found another process working on the run
            self._leave(job)
            return RUNNING_ELSEWHERE
        _conclude(job, record, self._logs[name])
        if job.outcome != FINISHED:
            with suppress(InputError):
                update_status(job.directory, lambda status: _without_slurm_job(status, job))
        show_outcome(job, self._display)
        return job.outcome


def _conclude(job: Job, record: Mapping[str, str], log: Path) -> None:
    """Fill in how a job ended, from its status file and from what SLURM remembers of it."""
    status = read_status(job.directory)
    state = record.get("JobState", "UNKNOWN")
    if status is not None and status.state == QUEUED and state == "CANCELLED":
        job.outcome, job.reason = NOT_STARTED, ""
    elif is_finished(job.directory) and record.get("ExitCode") in (None, "0:0"):
        job.outcome, job.reason = FINISHED, ""
        job.seconds = status.seconds if status is not None else None
    elif status is not None and status.state in (FAILED, INTERRUPTED):
        job.outcome, job.reason, job.seconds = status.state, status.reason or "", status.seconds
    else:
        job.outcome = INTERRUPTED if state in _INTERRUPTED else FAILED
        job.reason = f"{_REASONS.get(state, f'its job is gone, and SLURM says {state}')}; {short_path(log)}"


def _end_elsewhere(job: Job) -> None:
    if is_finished(job.directory):
        job.outcome, job.reason = SKIPPED, ""
    else:
        resolve_outcomes([job])


def _mark_requeued(job: Job, name: str) -> bool:
    """Mark a run as queued whose job SLURM has requeued; False if it is marked already or is running."""
    status = read_status(job.directory)
    if status is None or status.state not in (RUNNING, INTERRUPTED):
        return False
    own = Status()
    requeued = replace(
        status.ended(QUEUED, "requeued by SLURM"),
        previous_state=INTERRUPTED,
        slurm_job=name,
        host=own.host,
        pid=own.pid,
        process_start=own.process_start,
    )
    return update_status(job.directory, lambda status: requeued)


def _with_slurm_job(status: Status | None, name: str) -> Status | None:
    """The status of a run in this process's queue that has now been submitted."""
    own = in_own_queue(status)
    return replace(own, slurm_job=name) if own is not None else None


def _without_slurm_job(status: Status | None, job: Job) -> Status | None:
    """The status of an unfinished run whose SLURM job has ended."""
    if status is None:
        return None
    if job.outcome == NOT_STARTED:
        status = status.dequeued(NEVER_STARTED)
    elif status.state in (QUEUED, RUNNING):
        status = status.ended(job.outcome, job.reason)
    return replace(status, previous_state=None, slurm_job=None)


def _is_elsewhere(job: Job, queue: Mapping[str, QueueEntry]) -> bool:
    """Whether another process works on the run, or SLURM has a job for it from an earlier command."""
    status = read_status(job.directory)
    return is_running(job) or (status is not None and status.slurm_job in queue)
