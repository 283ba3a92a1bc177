"""The queue of a sweep: which of its runs are to be computed, as their status files show it to other processes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from attnspan.errors import InputError
from attnspan.runs.completeness import is_finished
from attnspan.runs.status import (
    FAILED,
    FINISHED,
    HEARTBEAT_TIMEOUT,
    QUEUED,
    RUNNING,
    Status,
    current_status,
    read_status,
    update_status,
)
from attnspan.sweeps.job import NOT_STARTED, RUNNING_ELSEWHERE, SKIPPED, Job, remove_job

NEVER_STARTED = "its sweep ended before it started"
_RENEWAL_INTERVAL = HEARTBEAT_TIMEOUT / 4  # seconds; there may be thousands of queued runs


def enqueue(jobs: Iterable[Job], *, rerun: bool) -> None:
    """Mark each run as queued and write its job file; a finished run is skipped unless ``rerun``.

    A run that is running, or in another sweep's queue, is left as it is. Raises InputError if it cannot write.
    """
    for job in jobs:
        if is_finished(job.directory) and not rerun:
            job.outcome = SKIPPED
            remove_job(job.directory)
        elif not _is_active(job.directory, (QUEUED, RUNNING)):
            job.write()
            status = job.queued_status()
            update_status(job.directory, lambda last, status=status: status)  # type: ignore[misc]


def is_running(job: Job) -> bool:
    """Whether a process works on the run."""
    return _is_active(job.directory, (RUNNING,))


def _is_active(directory: Path, states: Sequence[str]) -> bool:
    with suppress(InputError):
        return current_status(directory).state in states
    return False


@contextmanager
def queue_heartbeats(jobs: Sequence[Job]) -> Iterator[None]:
    """Renew the heartbeats of the runs in this process's queue.

    On another host nothing else shows that this process is alive.
    """
    stopped = threading.Event()

    def renew() -> None:
        while not stopped.wait(_RENEWAL_INTERVAL):
            for job in jobs:
                if in_own_queue(read_status(job.directory)):
                    with suppress(InputError):  # starting the run raises it again
                        update_status(job.directory, in_own_queue)

    thread = threading.Thread(target=renew, name="queue", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def release(jobs: Iterable[Job], outcome: str) -> None:
    """Take jobs off the queue, for other sweeps or a later command."""
    for job in jobs:
        job.outcome = outcome
        with suppress(InputError):
            update_status(job.directory, lambda status: (own := in_own_queue(status)) and own.dequeued(NEVER_STARTED))


def in_own_queue(status: Status | None) -> Status | None:
    """The status if this process has the run in its queue, else None."""
    return status if status is not None and status.state == QUEUED and status.is_own else None


def resolve_outcomes(jobs: Iterable[Job]) -> None:
    """Read from the status files how jobs ended that this process did not run."""
    for job in jobs:
        if job.outcome:
            continue
        try:
            status = current_status(job.directory)
        except InputError as error:
            job.outcome, job.reason = FAILED, str(error)
            continue
        job.outcome, job.reason = status.state, status.reason or ""
        if status.state == FINISHED:
            job.seconds = status.seconds
        elif status.state == RUNNING:
            job.outcome, job.reason = RUNNING_ELSEWHERE, f"process {status.pid} on {status.host}"
        elif status.state == QUEUED:
            job.reason = ""
            release([job], NOT_STARTED)
