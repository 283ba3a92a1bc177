"""Runs the jobs of a sweep on this machine, several at once, each in its own process."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence

from rich.console import Console

from attnspan.runs.completeness import is_finished
from attnspan.runs.status import FAILED, RUNNING, STARTING, read_status
from attnspan.sweeps.job import NOT_STARTED, RUNNING_ELSEWHERE, SKIPPED, Job
from attnspan.sweeps.job_process import conclude, renew_start_heartbeat, start, stop
from attnspan.sweeps.outcomes import show_outcome, show_skipped
from attnspan.sweeps.progress import ProgressDisplay
from attnspan.sweeps.queue import is_running, release
from attnspan.training.signals import interrupt_on_termination

_POLL_INTERVAL = 0.2  # seconds


def run_jobs(
    jobs: Sequence[Job],
    *,
    n_jobs: int,
    threads: int,
    rerun: bool,
    fail_fast: bool,
    console: Console,
    next_job: Callable[[], Job | None] = lambda: None,
    expected: int = 0,
    on_end: Callable[[Job], None] = lambda job: None,
) -> None:
    """Run all jobs, ``n_jobs`` at once, and fill in how each ended.

    Finished runs are skipped unless ``rerun``. A run that another process is working on is waited for: it counts as
    finished when that process finishes it, and is run here otherwise. On this machine it occupies one of the places
    meanwhile. A job that fails does not affect the others. Ctrl-C, SIGTERM or SIGHUP stops the running jobs and raises
    KeyboardInterrupt.

    Args:
        jobs: in the order in which to start them; they have been passed to :func:`attnspan.sweeps.queue.enqueue`.
        n_jobs: jobs at once.
        threads: CPU threads of each.
        rerun: compute finished runs again.
        fail_fast: after the first failure, stop the running jobs and start no other.
        console: for progress.
        next_job: makes another job when all ``jobs`` are started and a place is free; None if there is none.
        expected: number of jobs that ``next_job`` will make.
        on_end: called with each job that ended, before ``next_job`` is called again.
    """
    with ProgressDisplay(console=console, jobs=len(jobs) + expected, n_jobs=n_jobs) as display:
        pool = _Pool(show_skipped(jobs, display), display, n_jobs, threads, rerun, next_job, on_end)
        restore_handlers = interrupt_on_termination()
        try:
            while pool.start_jobs():
                time.sleep(_POLL_INTERVAL)
                pool.poll()
                if fail_fast and pool.has_failed:
                    display.log("fail_fast=true: the running jobs are stopped, no other is started")
                    stop(pool.running)
                    break
        except BaseException:  # no job may outlive its sweep
            stop(pool.running)
            raise
        finally:
            restore_handlers()
            release(pool.elsewhere, RUNNING_ELSEWHERE)
            release(pool.waiting, NOT_STARTED)


class _Pool:
    """The jobs of a sweep that have not ended.

    Attributes:
        waiting: for a free place.
        running: in processes of this sweep.
        elsewhere: in processes of others.
        has_failed: whether a job failed.
    """

    def __init__(
        self,
        jobs: list[Job],
        display: ProgressDisplay,
        n_jobs: int,
        threads: int,
        rerun: bool,
        next_job: Callable[[], Job | None],
        on_end: Callable[[Job], None],
    ) -> None:
        self.waiting = jobs
        self.running: list[Job] = []
        self.elsewhere: list[Job] = []
        self.has_failed = False
        self._display = display
        self._n_jobs = n_jobs
        self._threads = threads
        self._rerun = rerun
        self._next_job = next_job
        self._on_end = on_end

    def start_jobs(self) -> bool:
        """Start jobs while places are free. Returns False when all jobs have ended."""
        while len(self.running) + sum(map(_is_on_this_host, self.elsewhere)) < self._n_jobs:
            job = self.waiting.pop(0) if self.waiting else self._next_job()
            if job is None:
                break
            if self._is_running_elsewhere(job):
                self.elsewhere.append(job)
            elif is_finished(job.directory) and not self._rerun:
                self._end(job, SKIPPED)
            elif start(job, self._threads):
                self.running.append(job)
                self._display.update(job.label, job.status(RUNNING, phase=STARTING))
            else:
                self._end(job, FAILED)
        return bool(self.running or self.elsewhere)

    def poll(self) -> None:
        """Show progress, and take out the jobs that have ended."""
        for job in list(self.elsewhere):
            if self._is_running_elsewhere(job):
                continue
            self.elsewhere.remove(job)
            if is_finished(job.directory):
                self._end(job, SKIPPED)
            else:
                self.waiting.append(job)
        for job in list(self.running):
            if self._is_still_running(job):
                continue
            self.running.remove(job)
            if job.outcome == RUNNING_ELSEWHERE:  # another sweep got the run's lock first
                job.outcome = ""
                self.elsewhere.append(job)
            else:
                self._end(job, job.outcome)

    def _is_running_elsewhere(self, job: Job) -> bool:
        if not is_running(job):
            return False
        status = read_status(job.directory)
        where = f" in process {status.pid} on {status.host}" if status else ""
        if not job.reason:
            self._display.log(f"{job.label}: {RUNNING_ELSEWHERE}{where}; this sweep waits for it")
        job.reason = f"running{where}"
        return True

    def _is_still_running(self, job: Job) -> bool:
        assert job.process is not None
        if job.process.poll() is not None:
            conclude(job)
            return False
        status = read_status(job.directory)
        if status is not None and status.pid == job.process.pid and status.state == RUNNING:
            self._display.update(job.label, status)
            renew_start_heartbeat(job)
        return True

    def _end(self, job: Job, outcome: str) -> None:
        job.outcome = outcome
        self.has_failed = self.has_failed or outcome == FAILED
        if outcome == SKIPPED:
            job.reason = ""
        show_outcome(job, self._display)
        self._on_end(job)


def _is_on_this_host(job: Job) -> bool:
    status = read_status(job.directory)
    return status is not None and status.host == socket.gethostname()
