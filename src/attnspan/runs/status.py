"""How a run is getting on: one small file in its directory, rewritten while it works and read by whoever waits.

A run is

===============  ==============================================================================================
``queued``       a sweep has it on its list
``running``      a process on some host works on it, and renews its heartbeat; ``phase`` says at what
``finished``     every file of a finished run is there
``failed``       it stopped by an error, or was killed under a sweep's eyes; the same command tries it again
``interrupted``  it was asked to stop, or its process is gone; the same command goes on
===============  ==============================================================================================

The file says what its writer last knew; who is killed cannot say so. :func:`look` tells what is true.
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
from types import TracebackType
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

BEAT = 10.0
"""Seconds after which a heartbeat is renewed, whatever the run is busy with."""
STALE = 120.0
"""Seconds without a heartbeat after which a process that cannot be asked, on another host, counts as gone."""
_MOMENT = 0.2
"""Seconds to wait for a lock that is only being looked at."""


def birth(pid: int) -> str | None:
    """The boot of this machine and the time since then at which a process began: a pid may be given away, this not.

    None if there is no such process, or no ``/proc`` to tell.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return f"{boot}/{stat.rpartition(')')[2].split()[19]}"  # the 22nd field; the 2nd, a name, may hold anything


@dataclass(kw_only=True)
class Status:
    """What a run is doing.

    Attributes:
        state: one of ``STATES``.
        phase: what a running run is at; empty if it does not run.
        done: units of the phase done: updates in training, batches in validation and testing.
        total: units of the phase in all.
        update: updates of the weights so far.
        updates: updates in all.
        loss: last known training loss, nats per target token.
        seconds: time since the run began.
        remaining: estimated seconds to the end of the phase, None where nobody knows.
        reason: why it failed, or what interrupted it, one line.
        traceback: where it failed.
        before: how a queued run had ended before it was queued, if it had; reason and traceback are then of that.
        arm: of the run.
        data: of the run.
        seed: of the run.
        command: that starts it, for people.
        slurm: SLURM's job for it, by its id in the array; None if there is none.
        host: where it runs; where its sweep runs, if it is queued.
        pid: the process there.
        born: its :func:`birth`.
        heartbeat: when this was last known to be true, seconds since the epoch.
    """

    state: str = RUNNING
    phase: str = ""
    done: int = 0
    total: int = 0
    update: int = 0
    updates: int = 0
    loss: float | None = None
    seconds: float = 0.0
    remaining: float | None = None
    reason: str | None = None
    traceback: str | None = None
    before: str | None = None
    arm: str = ""
    data: str = ""
    seed: int | None = None
    command: str = ""
    slurm: str | None = None
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    born: str | None = field(default_factory=lambda: birth(os.getpid()))
    heartbeat: float = field(default_factory=time.time)

    def write(self, directory: Path) -> None:
        """Put this status into a run directory.

        Raises:
            InputError: it cannot be written.
        """
        self.heartbeat = time.time()
        # It is written every second, and after a power cut nobody is at work: it need not be on the disk.
        write_text(directory / STATUS, json.dumps(asdict(self), indent=2) + "\n", durable=False)

    @property
    def is_mine(self) -> bool:
        """Whether this process is the one that it names."""
        return (self.host, self.pid, self.born) == (socket.gethostname(), os.getpid(), birth(os.getpid()))


class Teller:
    """Writes the status of one run, and renews its heartbeat while there is nothing new to say.

    Args:
        directory: of the run.
        arm: of the run.
        data: of the run.
        seed: of the run.
        command: that starts it.
    """

    def __init__(self, directory: Path, *, arm: str, data: str, seed: int, command: str = "") -> None:
        self._directory = directory
        self._run: dict[str, Any] = {"arm": arm, "data": data, "seed": seed, "command": command}
        self._last: Status | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        started = read_status(self._directory)
        if started is not None and started.is_mine:  # who started this process knows of which job of SLURM's it is
            self._run["slurm"] = started.slurm
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def tell(self, status: Status) -> None:
        """Write ``status``, with what it does not say about updates and loss as it was.

        Raises:
            InputError: it cannot be written.
        """
        with self._lock:
            last = self._last or Status()
            self._last = replace(
                status,
                **self._run,
                update=status.update or last.update,
                updates=status.updates or last.updates,
                loss=last.loss if status.loss is None else status.loss,
            )
            self._last.write(self._directory)

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with self._lock:
                if self._last is None or time.time() - self._last.heartbeat < BEAT:
                    continue
                try:
                    self._last.write(self._directory)
                except InputError:  # the run itself will meet it where somebody listens
                    continue


def load_status(directory: Path) -> Status:
    """Read a run directory's status, as its writer left it.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = directory / STATUS
    content = read_json(path)
    known = {one.name: str(one.type).replace("float", "int | float").split(" | ") for one in fields(Status)}
    for name, value in content.items():
        kind = "None" if value is None else type(value).__name__
        if kind not in known.get(name, [kind]):
            raise InputError(f"{path}: {name} is {value!r}")
    if content.get("state") not in STATES:
        raise InputError(f"{path}: state is {content.get('state')!r}, none of {', '.join(STATES)}")
    # Who wrote before births were known has written none, and it is not ours.
    return Status(**{"born": None} | {name: value for name, value in content.items() if name in known})


def read_status(directory: Path) -> Status | None:
    """Read a run directory's status, as its writer left it; None where there is none that is whole."""
    try:
        return load_status(directory)
    except InputError:
        return None


def amend(directory: Path, change: Callable[[Status | None], Status | None]) -> bool:
    """Write a status in the place of the one that is there, for a run that no process is at work on.

    The run's lock is held meanwhile, so that what a run writes that has just begun is not overwritten. So ``change``
    must not :func:`look` at the run: it would find the lock held.

    Args:
        directory: of the run; made if it is not there.
        change: the status that is there, if it is whole, to the one to write; None to leave it.

    Returns:
        Whether nobody was at work.

    Raises:
        InputError: it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / LOCK, timeout=_MOMENT, poll_interval=_MOMENT / 10):
            status = change(read_status(directory))
            if status is not None:
                status.write(directory)
    except Timeout:
        return False
    except OSError as error:
        raise cannot_write(directory, error) from error
    return True


def look(directory: Path) -> Status:
    """Find out how a run is really getting on, from its files alone; nothing is written and nobody is disturbed.

    Raises:
        InputError: it is not finished, and its status is missing or damaged.
    """
    if is_finished(directory, hashes=False):
        status = read_status(directory) or Status(host="", pid=0)
        if (status.state == QUEUED or status.phase == STARTING) and is_alive(directory, status):
            return replace(status, update=0, loss=None)  # it is to be computed again
        return replace(status, state=FINISHED, phase="", remaining=None, before=None, reason=None, traceback=None)
    status = load_status(directory)
    if status.state == FINISHED:
        return _gone(status, f"it was finished, and then {why_unfinished(directory, hashes=False)}")
    if status.state == QUEUED and not is_alive(directory, status):
        return unqueued(status, "its sweep is gone")
    if status.state == RUNNING and not is_alive(directory, status):
        return _gone(status, "its process is gone")
    return status


def unqueued(status: Status, reason: str) -> Status:
    """What a queued run is when nobody has it on a list any more: what it was before, or interrupted by ``reason``."""
    if status.before is None:
        return _gone(status, reason)
    return replace(status, state=status.before, before=None)


def is_alive(directory: Path, status: Status) -> bool:
    """Whether the process that wrote ``status`` still works on the run, or still has it on its list."""
    if status.host != socket.gethostname():
        return _beats(status)
    if status.state == RUNNING and status.phase != STARTING:
        return _exists(status.pid) and is_locked(directory)
    if status.born is not None:
        return birth(status.pid) == status.born
    return _exists(status.pid) and _beats(status)


def is_locked(directory: Path) -> bool:
    """Whether a process on this host holds the run's lock. Asking is as harmless as reading."""
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


def _beats(status: Status) -> bool:
    return time.time() - status.heartbeat < STALE


def _exists(pid: int) -> bool:
    if pid <= 0:  # would mean a group of processes
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:  # somebody else's
        return True
    except (OSError, OverflowError):
        return False
    return True


def _gone(status: Status, reason: str) -> Status:
    return replace(status, state=INTERRUPTED, phase="", remaining=None, reason=reason)
