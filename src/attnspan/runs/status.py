"""The state and progress of a run: one small file in its directory, rewritten while the run works.

===============  ==========================================================================================
``queued``       a sweep has put the run in its queue
``running``      a process works on it and renews its heartbeat; ``phase`` says what it is doing
``finished``     all files of a finished run are present
``failed``       it stopped with an error, or was killed while its sweep watched; the same command retries it
``interrupted``  it was asked to stop, or its process is gone; the same command resumes it
===============  ==========================================================================================

The file holds what its writer last wrote, and a killed process writes nothing. :func:`current_status` finds out what is
true now.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from attnspan.errors import InputError
from attnspan.files import cannot_write, read_json, write_text
from attnspan.runs.completeness import is_finished, why_unfinished
from attnspan.runs.layout import LOCK, STATUS

QUEUED, RUNNING, FINISHED, FAILED, INTERRUPTED = "queued", "running", "finished", "failed", "interrupted"
STATES = (QUEUED, RUNNING, FINISHED, FAILED, INTERRUPTED)
STARTING, PREPARING = "starting", "preparing"
TRAINING, VALIDATING, TESTING = "training", "validating", "testing"

PLATEAU, MAX_STEPS = "plateau", "max_steps"
"""Why training ended: validation gained no more, or ``trainer.max_steps`` updates were done."""

HEARTBEAT_INTERVAL = 10.0
"""Seconds between two heartbeats, whatever the run is busy with."""
HEARTBEAT_TIMEOUT = 120.0
"""Seconds without a heartbeat after which a process on another host counts as gone."""
_LOCK_TIMEOUT = 0.2
"""Seconds to wait for a lock that another process holds only to check it."""


def process_start_time(pid: int) -> str | None:
    """The start of a process: the boot of this machine, and clock ticks since then. Unlike a pid it is never reused.

    None if there is no such process, or no ``/proc``.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return f"{boot}/{stat.rpartition(')')[2].split()[19]}"  # field 22; field 2, the name, may contain anything


@dataclass(kw_only=True)
class Status:
    """The state and progress of a run."""

    state: str = RUNNING  # one of STATES
    phase: str = ""  # what a running run is doing; empty in the other states
    done: int = 0  # units of the phase done: updates in training, batches in validation and testing
    total: int = 0  # all units of the phase
    update: int = 0  # updates of the weights so far
    updates: int = 0  # all updates of the run
    loss: float | None = None  # last known training loss, nats per target token
    validation: float | None = None  # last validation loss, likewise
    speed: float | None = None  # updates a second in training
    seconds: float = 0.0  # since the run started
    remaining: float | None = None  # estimated seconds to the end of the phase, None if unknown
    at_most: bool = False  # whether the phase may end earlier: training does at a plateau
    message: str | None = None  # last line that the run printed
    reason: str | None = None  # why it failed or what interrupted it, one line
    traceback: str | None = None  # of the error
    previous_state: str | None = None  # how a queued run had ended; reason and traceback then belong to that
    arm: str = ""
    data: str = ""
    seed: int | None = None
    command: str = ""  # starts the run, for people
    slurm_job: str | None = None  # id of its SLURM job in the array; None if there is none
    host: str = field(default_factory=socket.gethostname)  # of its process, or of its sweep's if it is queued
    pid: int = field(default_factory=os.getpid)  # of that process
    process_start: str | None = field(default_factory=lambda: process_start_time(os.getpid()))  # of that process
    heartbeat: float = field(default_factory=time.time)  # when this was last known to be true, seconds since the epoch

    def write(self, directory: Path) -> None:
        """Write this status to a run directory; raises InputError if it cannot be written."""
        self.heartbeat = time.time()
        # Written every second, and of no use after a power cut: it need not be synced to the disk.
        write_text(directory / STATUS, json.dumps(asdict(self), indent=2) + "\n", durable=False)

    def ended(self, state: str, reason: str | None) -> Status:
        """The status of this run when its process has ended."""
        return replace(self, state=state, phase="", remaining=None, reason=reason)

    def dequeued(self, reason: str) -> Status:
        """The status of this queued run when no sweep queues it any more: as before, or interrupted by ``reason``."""
        if self.previous_state is None:
            return self.ended(INTERRUPTED, reason)
        return replace(self, state=self.previous_state, previous_state=None)

    @property
    def is_own(self) -> bool:
        """Whether this process wrote it."""
        own = Status()
        return (self.host, self.pid, self.process_start) == (own.host, own.pid, own.process_start)


class StatusWriter:
    """Writes the status of one run, and renews its heartbeat between two writes."""

    def __init__(self, directory: Path, *, arm: str, data: str, seed: int, command: str = "") -> None:
        self._directory = directory
        self._run: dict[str, Any] = {"arm": arm, "data": data, "seed": seed, "command": command}
        self._last: Status | None = None
        self._message: str | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        starting = read_status(self._directory)
        if starting is not None and starting.is_own:  # written by the process that started this one
            self._run["slurm_job"] = starting.slurm_job
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()

    def write(self, status: Status) -> None:
        """Write ``status`` as :meth:`Status.write` does. What it does not know keeps its last value."""
        with self._lock:
            last = self._last or Status()
            kept = {
                name: getattr(last, name) if getattr(status, name) is None else getattr(status, name)
                for name in ("loss", "validation", "speed")
            }
            self._last = replace(
                status,
                **self._run,
                **kept,
                update=status.update or last.update,
                updates=status.updates or last.updates,
                message=self._message,
            )
            self._last.write(self._directory)

    def say(self, line: str) -> None:
        """Have the next status hold ``line``, the last that the run printed."""
        self._message = line

    def _renew(self) -> None:
        while not self._stopped.wait(HEARTBEAT_INTERVAL):
            with self._lock:
                if self._last is None or time.time() - self._last.heartbeat < HEARTBEAT_INTERVAL:
                    continue
                try:
                    self._last.write(self._directory)
                except InputError:  # the run's own next write raises it
                    continue


def load_status(directory: Path) -> Status:
    """Read the status file of a run directory; raises InputError if it is missing or damaged."""
    path = directory / STATUS
    content = read_json(path)
    known = {one.name: str(one.type).replace("float", "int | float").split(" | ") for one in fields(Status)}
    for name, value in content.items():
        kind = "None" if value is None else type(value).__name__
        if kind not in known.get(name, [kind]):
            raise InputError(f"{path}: {name} is {value!r}")
    if content.get("state") not in STATES:
        raise InputError(f"{path}: state is {content.get('state')!r}, none of {', '.join(STATES)}")
    # Without one it is not this process's start, which is the default.
    return Status(**{"process_start": None} | {name: value for name, value in content.items() if name in known})


def read_status(directory: Path) -> Status | None:
    """Read the status file of a run directory; None if it is missing or damaged."""
    try:
        return load_status(directory)
    except InputError:
        return None


def update_status(directory: Path, change: Callable[[Status | None], Status | None]) -> bool:
    """Replace the status of a run on which no process works.

    ``change`` maps the status that is there (None if missing or damaged) to the one to write; None writes nothing. The
    run's lock is held meanwhile, so that the status of a run that has just started is not overwritten. ``change`` must
    therefore not call :func:`current_status`, which would find the lock held. Returns False if a process holds it.

    Raises:
        InputError: the status cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / LOCK, timeout=_LOCK_TIMEOUT, poll_interval=_LOCK_TIMEOUT / 10):
            status = change(read_status(directory))
            if status is not None:
                status.write(directory)
    except Timeout:
        return False
    except OSError as error:
        raise cannot_write(directory, error) from error
    return True


def current_status(directory: Path) -> Status:
    """Find out the true state of a run from its files. Writes nothing.

    Raises:
        InputError: the run is not finished, and its status is missing or damaged.
    """
    if is_finished(directory, hashes=False):
        status = read_status(directory) or Status(host="", pid=0)
        if (status.state == QUEUED or status.phase == STARTING) and is_alive(directory, status):
            return replace(status, update=0, loss=None)  # it will be computed again
        return replace(status.ended(FINISHED, None), previous_state=None, traceback=None)
    status = load_status(directory)
    if status.state == FINISHED:
        return status.ended(INTERRUPTED, f"it was finished, and then {why_unfinished(directory, hashes=False)}")
    if status.state == QUEUED and not is_alive(directory, status):
        return status.dequeued("its sweep is gone")
    if status.state == RUNNING and not is_alive(directory, status):
        return status.ended(INTERRUPTED, "its process is gone")
    return status


def is_alive(directory: Path, status: Status) -> bool:
    """Whether the process that wrote ``status`` still works on the run or has it in its queue."""
    if status.host != socket.gethostname():
        return _has_heartbeat(status)
    if status.state == RUNNING and status.phase != STARTING:
        return _process_exists(status.pid) and is_locked(directory)
    if status.process_start is not None:
        return process_start_time(status.pid) == status.process_start
    return _process_exists(status.pid) and _has_heartbeat(status)


def is_locked(directory: Path) -> bool:
    """Whether a process on this host holds the run's lock."""
    try:
        handle = os.open(directory / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _has_heartbeat(status: Status) -> bool:
    return time.time() - status.heartbeat < HEARTBEAT_TIMEOUT


def _process_exists(pid: int) -> bool:
    if pid <= 0:  # os.kill would take it for a process group
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:  # another user's
        return True
    except (OSError, OverflowError):
        return False
    return True
