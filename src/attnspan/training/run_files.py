"""The files of a run's directory while the run owns it: the lock, what an earlier attempt left, what is not kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from attnspan.errors import AlreadyRunningError
from attnspan.files import cannot_write
from attnspan.runs import layout
from attnspan.runs.status import read_status


@contextmanager
def exclusive_access(directory: Path) -> Iterator[None]:
    """Hold the lock of a run's directory; the system releases it when the process ends, however it ends.

    Raises:
        AlreadyRunningError: another process computes the run.
        InputError: the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / layout.LOCK, timeout=1)  # a process that only checks it releases it at once
        lock.acquire()
    except Timeout as error:
        status = read_status(directory)
        process = f" in process {status.pid} on {status.host}" if status else ""
        raise AlreadyRunningError(f"{directory}: this run is being computed{process}") from error
    except OSError as error:
        raise cannot_write(directory, error) from error
    try:
        yield
    finally:
        lock.release()


def clear_results(directory: Path, *, resumes: bool, rerun: bool) -> None:
    """Remove what an earlier attempt left, the summary first: without one nothing counts as a result.

    Args:
        directory: of the run.
        resumes: keep what the run resumes from.
        rerun: remove the checkpoints that were set aside, too.
    """
    directory.mkdir(parents=True, exist_ok=True)
    start = () if resumes else (layout.METRICS, layout.CONFIG, layout.BEST, layout.LAST, layout.PREVIOUS, layout.TESTED)
    for name in (layout.SUMMARY, layout.RECORDS, layout.ATTENTION, *start):
        for path in directory.glob(name):
            path.unlink()
    if rerun:
        shutil.rmtree(directory / layout.CHECKPOINTS, ignore_errors=True)
    remove_partial_files(directory)


def remove_spare_checkpoints(directory: Path) -> None:
    """Remove the checkpoints that a finished run does not need."""
    for name in (layout.PREVIOUS, layout.TESTED, f"{layout.CHECKPOINTS}/*{layout.UNUSABLE}"):
        for path in directory.glob(name):
            path.unlink()


def remove_partial_files(directory: Path) -> None:
    """Remove the temporary files that a killed attempt was writing."""
    for name in (*layout.NEEDED, layout.SUMMARY, layout.STATUS, layout.ATTENTION, layout.LAST, layout.TESTED):
        path = directory / name
        for temporary in path.parent.glob(f".{path.name}.*"):
            temporary.unlink(missing_ok=True)
