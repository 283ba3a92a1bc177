"""The process of one job: starting it, waiting for it, stopping it, and finding out how it ended."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from attnspan.config.threads import thread_environment
from attnspan.errors import AlreadyRunningError, InputError
from attnspan.files import cannot_write, free_bytes, size
from attnspan.runs.child_process import child_environment
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import LOG
from attnspan.runs.status import (
    FAILED,
    FINISHED,
    HEARTBEAT_INTERVAL,
    INTERRUPTED,
    RUNNING,
    STARTING,
    Status,
    read_status,
    update_status,
)
from attnspan.sweeps.job import RUNNING_ELSEWHERE, Job
from attnspan.training.signals import Stop

_STOP_TIMEOUT = 60.0  # seconds that a run has to reach its next update and stop
_DISK_FULL = 2**20  # bytes; with fewer free the disk counts as full


def start(job: Job, threads: int) -> bool:
    """Start a job; its output goes to the log in the run directory. False if it cannot start, for ``job.reason``."""
    job.started = time.monotonic()
    try:
        with _open_log(job.directory) as log:
            job.write()
            # A session of its own: Ctrl-C reaches it through the sweep, once.
            job.process = subprocess.Popen(
                job.arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=child_environment(**thread_environment(threads)),
                start_new_session=True,
            )
        # Not if the run's lock is held: it may be by another sweep's process, which writes its own status.
        update_status(job.directory, lambda status: job.status(RUNNING, phase=STARTING))
    except (InputError, OSError) as error:
        stop([job])
        job.outcome, job.reason = FAILED, str(error)
        with suppress(InputError):
            update_status(job.directory, lambda status: job.status(FAILED, reason=job.reason))
        return False
    return True


def _open_log(directory: Path) -> IO[bytes]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return (directory / LOG).open("ab")
    except OSError as error:
        raise cannot_write(directory, error) from error


def renew_start_heartbeat(job: Job) -> None:
    """Renew the heartbeat of a job whose process still loads its libraries; later the process does it itself."""

    def if_due(status: Status | None) -> Status | None:
        if status is None or job.process is None or status.pid != job.process.pid or status.phase != STARTING:
            return None
        return status if time.time() - status.heartbeat >= HEARTBEAT_INTERVAL else None

    if if_due(read_status(job.directory)):
        with suppress(InputError):
            update_status(job.directory, if_due)


def own_status(job: Job) -> Status | None:
    """The status of a started job's run, if its process has written it."""
    status = read_status(job.directory)
    return status if status is not None and job.process is not None and status.pid == job.process.pid else None


def wait(job: Job) -> None:
    """Wait until a started job has ended, and fill in how."""
    assert job.process is not None
    try:
        while job.process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                job.process.wait(timeout=HEARTBEAT_INTERVAL)
            renew_start_heartbeat(job)
    except BaseException:
        stop([job])
        raise
    conclude(job)


def stop(jobs: Sequence[Job]) -> None:
    """Ask running jobs to write a checkpoint and stop, and wait for them; those that do not stop are killed."""
    processes = [(job, job.process) for job in jobs if job.process is not None]
    try:
        for _, process in processes:
            process.terminate()
        deadline = time.monotonic() + _STOP_TIMEOUT
        for _, process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
    finally:
        for job, process in processes:
            process.kill()
            process.wait()
            job.seconds = time.monotonic() - job.started
            job.outcome, job.reason = INTERRUPTED, "with its sweep"
            _write_outcome(job)


def conclude(job: Job) -> None:
    """Fill in how a job ended, from its exit code and its status file."""
    assert job.process is not None
    code, own = job.process.returncode, own_status(job)
    job.seconds = time.monotonic() - job.started
    if code == AlreadyRunningError.EXIT_CODE:
        job.outcome, job.seconds = RUNNING_ELSEWHERE, None
        return
    if (code == 0 or (own and own.state == FINISHED)) and is_finished(job.directory):
        job.outcome, job.reason = FINISHED, ""
    elif own and own.state == INTERRUPTED:  # the run itself was asked to stop
        job.outcome, job.reason = INTERRUPTED, own.reason or ""
    elif -code in Stop.SIGNALS and (own is None or own.state == RUNNING):
        # Asked before its signal handlers were installed: its libraries were loading.
        job.outcome, job.reason = INTERRUPTED, f"by {_signal_name(-code)}"
    else:
        job.outcome = FAILED
        job.reason = (own and own.reason) or _failure_reason(job, code)
    _write_outcome(job)


def _failure_reason(job: Job, code: int) -> str:
    """Why a job failed that wrote no reason itself."""
    if code == -signal.SIGKILL:
        return "killed (out of memory?)"
    if code < 0:
        return f"killed by {_signal_name(-code)}"
    free = free_bytes(job.directory)
    if free < _DISK_FULL:
        return f"exit code {code}; the disk of {job.directory} is full ({size(free)} are free)"
    return _last_line(job.directory / LOG) or f"exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most realtime signals have no name
        return f"signal {number}"


def _write_outcome(job: Job) -> None:
    """Write the status of a job whose process ended without writing it."""
    status = own_status(job)
    if status is not None and status.state == RUNNING:
        with suppress(InputError):
            status.ended(job.outcome, job.reason or None).write(job.directory)


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
