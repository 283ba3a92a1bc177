"""Runs the jobs of a sweep on this machine, several at once, each in its own process."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from attnspan.runs.completeness import is_finished
from attnspan.runs.status import FAILED, RUNNING, STARTING, read_status
from attnspan.sweeps.job import NOT_STARTED, RUNNING_ELSEWHERE, SKIPPED, Job, SweepOptions
from attnspan.sweeps.job_process import conclude, own_status, renew_start_heartbeat, start, stop
from attnspan.sweeps.outcomes import show_outcome, show_skipped
from attnspan.sweeps.progress import ProgressDisplay
from attnspan.sweeps.queue import is_running, release
from attnspan.training.signals import interrupt_on_termination

_POLL_INTERVAL = 0.2  # seconds


def run_jobs(
    jobs: Sequence[Job],
    options: SweepOptions,
    console: Console,
    *,
    next_job: Callable[[], Job | None] = lambda: None,
    expected: int = 0,
    on_end: Callable[[Job], None] = lambda job: None,
) -> None:
    """Run all jobs, and fill in how each ended.

    A run that another process is working on is waited for: it counts as finished when that process finishes it, and is
    run here otherwise. On this machine it occupies one of the places meanwhile. A job that fails does not affect the
    others. Ctrl-C, SIGTERM or SIGHUP stops the running jobs and raises KeyboardInterrupt.

    ``jobs`` have been passed to :func:`attnspan.sweeps.queue.enqueue`, and start in this order. ``next_job`` makes
    another one, of ``expected`` in all, when these are started and a place is free; None if there is none. ``on_end``
    is called with each job that ended, before ``next_job`` is called again.
    """
    with ProgressDisplay(console=console, jobs=len(jobs) + expected, n_jobs=options.n_jobs) as display:
        pool = _Pool(options, display, next_job, on_end, waiting=show_skipped(jobs, display))
        restore_handlers = interrupt_on_termination()
        try:
            while pool.start_jobs():
                time.sleep(_POLL_INTERVAL)
                pool.poll()
                if options.fail_fast and pool.has_failed:
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


@dataclass
class _Pool:
    """The jobs of a sweep that have not ended."""

    options: SweepOptions
    display: ProgressDisplay
    next_job: Callable[[], Job | None]
    on_end: Callable[[Job], None]
    waiting: list[Job]  # for a free place
    running: list[Job] = field(default_factory=list)  # in processes of this sweep
    elsewhere: list[Job] = field(default_factory=list)  # in processes of others
    has_failed: bool = False

    def start_jobs(self) -> bool:
        """Start jobs while places are free. Returns False when all jobs have ended."""
        while len(self.running) + sum(map(_is_on_this_host, self.elsewhere)) < self.options.n_jobs:
            job = self.waiting.pop(0) if self.waiting else self.next_job()
            if job is None:
                break
            if self._is_running_elsewhere(job):
                self.elsewhere.append(job)
            elif is_finished(job.directory) and not self.options.rerun:
                self._end(job, SKIPPED)
            elif start(job, self.options.threads):
                self.running.append(job)
                self.display.update(job.label, job.status(RUNNING, phase=STARTING))
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
            self.display.log(f"{job.label}: {RUNNING_ELSEWHERE}{where}; this sweep waits for it")
        job.reason = f"running{where}"
        return True

    def _is_still_running(self, job: Job) -> bool:
        assert job.process is not None
        if job.process.poll() is not None:
            conclude(job)
            return False
        status = own_status(job)
        if status is not None and status.state == RUNNING:
            self.display.update(job.label, status)
            renew_start_heartbeat(job)
        return True

    def _end(self, job: Job, outcome: str) -> None:
        job.outcome = outcome
        self.has_failed = self.has_failed or outcome == FAILED
        if outcome == SKIPPED:
            job.reason = ""
        show_outcome(job, self.display)
        self.on_end(job)


def _is_on_this_host(job: Job) -> bool:
    status = read_status(job.directory)
    return status is not None and status.host == socket.gethostname()
