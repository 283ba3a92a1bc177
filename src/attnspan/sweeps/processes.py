"""Jobs of a sweep side by side, each in a process of its own, so that none can harm another."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from attnspan.config.threads import thread_environment
from attnspan.errors import InputError, UnderWayError
from attnspan.files import cannot_write, free_bytes, read_json, size, write_text
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import LOG, SUMMARY
from attnspan.runs.status import (
    FAILED,
    FINISHED,
    HEARTBEAT_INTERVAL,
    HEARTBEAT_TIMEOUT,
    INTERRUPTED,
    QUEUED,
    RUNNING,
    STARTING,
    Status,
    current_status,
    dequeued,
    process_start_time,
    read_status,
    update_status,
)
from attnspan.sweeps.progress import ProgressDisplay, duration
from attnspan.training.signals import Stop, interrupt_on_end

SKIPPED = "finished before"
NOT_STARTED = "not started"
ELSEWHERE = "running elsewhere"
GOOD = (FINISHED, SKIPPED)
_POLL = 0.2  # seconds
_PATIENCE = 60.0  # seconds that a run has to reach its next update and stop
_FULL = 2**20  # bytes
_RENEW = HEARTBEAT_TIMEOUT / 4  # seconds between two heartbeats of what is queued; there may be thousands


@dataclass(kw_only=True)
class Job:
    """One run of a sweep.

    Attributes:
        arm: of the run.
        data: of the run.
        seed: of the run.
        updates: that the run has in all.
        directory: of the run.
        overrides: what the command line sets for it.
        command: starts it.
        varied: overrides that not every job has, besides arm and seed.
        outcome: how it ended; empty while it has not.
        reason: why it failed, one line.
        seconds: how long it took.
        slurm_job: id of its SLURM job in the array, if it has one.
    """

    arm: str
    data: str
    seed: int
    updates: int
    directory: Path
    overrides: Sequence[str]
    command: Sequence[str]
    varied: str = ""
    outcome: str = ""
    reason: str = ""
    seconds: float | None = None
    slurm_job: str | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    began: float = 0.0

    @property
    def label(self) -> str:
        """What tells it from the other jobs, for people."""
        return " ".join(word for word in (self.arm, f"seed {self.seed}", self.varied) if word)

    def status(self, state: str, *, phase: str = "", reason: str | None = None) -> Status:
        """A status of the run, by who started it; what it had reached before is kept."""
        reached = read_status(self.directory) or Status()
        pid = self.process.pid if self.process else os.getpid()
        return Status(
            state=state,
            phase=phase,
            update=reached.update,
            updates=self.updates,
            loss=reached.loss,
            reason=reason,
            arm=self.arm,
            data=self.data,
            seed=self.seed,
            command=shlex.join(["attnspan-train", *self.overrides]),
            slurm_job=self.slurm_job,
            pid=pid,
            process_start=process_start_time(pid),
        )

    def queued(self) -> Status:
        """The status of the run by who has it on a list: with how it ended before, if it had begun."""
        status = self.status(QUEUED)
        with suppress(InputError):
            last = current_status(self.directory)
            status.slurm_job = last.slurm_job
            if last.state in (FINISHED, FAILED, INTERRUPTED):
                status.previous_state, status.seconds = last.state, last.seconds
                status.reason, status.traceback = last.reason, last.traceback
        return status


def run_jobs(
    jobs: Sequence[Job],
    *,
    n_jobs: int,
    threads: int,
    rerun: bool,
    fail_fast: bool,
    console: Console,
    more: Callable[[], Job | None] = lambda: None,
    to_come: int = 0,
    ended: Callable[[Job], None] = lambda job: None,
) -> None:
    """Run all jobs, ``n_jobs`` side by side, and fill in how each ended.

    What is finished already is not run again unless ``rerun``. What another process is at work on is waited for: it
    counts as finished when that process has finished it, and is run here if it does not. On this machine it takes up
    one of the places meanwhile. A job that fails leaves the others alone. Ctrl-C, SIGTERM or SIGHUP stops the running
    ones and comes back as KeyboardInterrupt.

    Args:
        jobs: in the order in which to start them; :func:`enqueue` has been told of them.
        n_jobs: how many at once.
        threads: CPU threads of each.
        rerun: compute again what is finished.
        fail_fast: after the first job that fails, stop the running ones and start no other.
        console: for progress.
        more: makes another job when all those have been started and a place is free; None if there is none.
        to_come: how many those will be.
        ended: is told of a job that has ended by itself, before there is another.
    """
    with ProgressDisplay(console=console, jobs=len(jobs) + to_come, n_jobs=n_jobs) as display:
        for job in jobs:
            if job.outcome:
                display.end(job.label, f"{job.outcome}, skipped")
        waiting = [job for job in jobs if not job.outcome]
        running: list[Job] = []
        elsewhere: list[Job] = []
        some_failed = False

        def end(job: Job, outcome: str) -> None:
            nonlocal some_failed
            some_failed = some_failed or outcome == FAILED
            _end(job, outcome, display)
            ended(job)

        listen_no_more = interrupt_on_end()
        try:
            while True:
                while len(running) + sum(_is_here(job.directory) for job in elsewhere) < n_jobs:
                    another = waiting.pop(0) if waiting else more()
                    if another is None:
                        break
                    job = another
                    if _is_under_way(job, display):
                        elsewhere.append(job)
                    elif is_finished(job.directory) and not rerun:
                        end(job, SKIPPED)
                    elif start(job, threads):
                        running.append(job)
                        display.show(job.label, job.status(RUNNING, phase=STARTING))
                    else:
                        end(job, FAILED)
                if not running and not elsewhere:
                    break
                time.sleep(_POLL)
                for job in list(elsewhere):
                    if not _is_under_way(job, display):
                        elsewhere.remove(job)
                        if is_finished(job.directory):
                            end(job, SKIPPED)
                        else:
                            waiting.append(job)
                for job in list(running):
                    if _still_runs(job, display):
                        continue
                    running.remove(job)
                    if job.outcome == ELSEWHERE:  # another sweep was quicker
                        job.outcome = ""
                        elsewhere.append(job)
                    else:
                        end(job, job.outcome)
                if fail_fast and some_failed:
                    display.say("fail_fast=true: the running jobs are stopped, no other is started")
                    stop(running)
                    break
        except BaseException:  # whatever it is, no job is left behind without us
            stop(running)
            raise
        finally:
            listen_no_more()
            _give_up(elsewhere, ELSEWHERE)
            _give_up(waiting, NOT_STARTED)


def enqueue(jobs: Iterable[Job], *, rerun: bool) -> None:
    """Write into each run's directory that it is on the list, and skip those that are finished unless ``rerun``.

    What another process is at work on, or has on its own list, is left as it is.

    Raises:
        InputError: a directory cannot be written.
    """
    for job in jobs:
        if is_finished(job.directory) and not rerun:
            job.outcome = SKIPPED
        elif not _is_taken(job.directory):
            _queue(job)


def _queue(job: Job) -> None:
    status = job.queued()
    update_status(job.directory, lambda before: status)


def _is_taken(directory: Path) -> bool:
    with suppress(InputError):
        return current_status(directory).state in (QUEUED, RUNNING)
    return False


@contextmanager
def keeping_queued(jobs: Sequence[Job]) -> Iterator[None]:
    """Renew the heartbeats of those jobs that this process has on its list, while they wait.

    On another host nothing else tells whether this process is there.
    """
    over = threading.Event()

    def renew() -> None:
        while not over.wait(_RENEW):
            for job in jobs:
                if _is_queued_here(read_status(job.directory)):
                    with suppress(InputError):  # who comes to the run will meet it
                        update_status(job.directory, lambda status: status if _is_queued_here(status) else None)

    thread = threading.Thread(target=renew, name="queue", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _is_queued_here(status: Status | None) -> bool:
    return status is not None and status.state == QUEUED and status.is_own


def settle(jobs: Iterable[Job]) -> None:
    """Fill in how jobs ended that somebody else has run, from what stands in their directories."""
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
            job.outcome, job.reason = ELSEWHERE, f"process {status.pid} on {status.host}"
        elif status.state == QUEUED:
            job.reason = ""
            _give_up([job], NOT_STARTED)


def list_path(config: dict[str, Any]) -> Path:
    """The file that lists the run directories of the sweep of ``config``."""
    return Path(config["runs_dir"], f"{config['study'] or 'sweep'}.txt")


def write_list(path: Path, jobs: Sequence[Job]) -> None:
    """Write the run directories of a sweep, one a line: ``attnspan-report @path`` reads it."""
    write_text(path, "".join(f"{job.directory}\n" for job in jobs))


def run_among(job: Job, directories: Sequence[Path], *, threads: int, fail_fast: bool) -> None:
    """Run a job for a launcher that is not ours, each of whose jobs knows of the others only what stands in files.

    Args:
        job: filled in with how it ended.
        directories: of all runs of the sweep; :func:`enqueue` has been told of them.
        threads: CPU threads of the job.
        fail_fast: if one of the sweep has failed, start none; if this one fails, stop the running ones.
    """
    if fail_fast and any(current_status(directory).state == FAILED for directory in directories):
        job.outcome, job.reason = NOT_STARTED, "another failed, and fail_fast=true"
        return
    if start(job, threads):
        wait(job)
    if fail_fast and job.outcome == FAILED:
        stop_all([directory for directory in directories if directory != job.directory])


def print_outcomes(console: Console, jobs: Sequence[Job]) -> None:
    """Print how every job ended, why if it did not end well, and where to read what it said."""
    with_varied = any(job.varied for job in jobs)
    names = ["arm", "data", "seed", *(["overrides"] if with_varied else []), "state", "time", "error rate"]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, justify="right" if name in ("seed", "time", "error rate") else "left", no_wrap=True)
    table.add_column("reason, log", overflow="fold")
    for job in jobs:
        rate = ""
        with suppress(InputError, KeyError):  # it may be gone by now
            if job.outcome in GOOD:
                rate = f"{read_json(job.directory / SUMMARY)['test']['error_rate']:.3f}"
        log = job.directory / LOG
        table.add_row(
            job.arm,
            job.data,
            str(job.seed),
            *([escape(job.varied)] if with_varied else []),
            job.outcome,
            duration(job.seconds) if job.seconds is not None else "",
            rate,
            escape("\n".join([*([job.reason] if job.reason else []), *([readable(log)] if log.exists() else [])])),
        )
    console.print(table, highlight=False)


def readable(path: Path) -> str:
    """A path from here if it lies below, else in full."""
    with suppress(ValueError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path)


def start(job: Job, threads: int) -> bool:
    """Start a job; what it prints goes to the log in its directory. False if it could not be, for the job's reason."""
    environment = os.environ | thread_environment(threads)
    job.began = time.monotonic()
    try:
        with _open_log(job.directory) as log:
            # A session of its own: Ctrl-C reaches it through us, once.
            job.process = subprocess.Popen(
                job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        # Not if a process has the run's lock: it may be another's, who was quicker, and says itself how it is.
        update_status(job.directory, lambda status: job.status(RUNNING, phase=STARTING))
    except (InputError, OSError) as error:
        stop([job])
        job.outcome, job.reason = FAILED, str(error)
        with suppress(InputError):
            update_status(job.directory, lambda status: job.status(FAILED, reason=job.reason))
        return False
    return True


def keep_starting(job: Job) -> None:
    """Renew the heartbeat of a job that was started, until its process has loaded what it needs and does so itself."""

    def is_due(status: Status | None) -> bool:
        if status is None or job.process is None or status.pid != job.process.pid:
            return False
        return status.phase == STARTING and time.time() - status.heartbeat >= HEARTBEAT_INTERVAL

    if is_due(read_status(job.directory)):
        with suppress(InputError):
            update_status(job.directory, lambda status: status if is_due(status) else None)


def _open_log(directory: Path) -> IO[bytes]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return (directory / LOG).open("ab")
    except OSError as error:
        raise cannot_write(directory, error) from error


def wait(job: Job) -> None:
    """Wait for a job that was started, and fill in how it ended."""
    assert job.process is not None
    try:
        while job.process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                job.process.wait(timeout=HEARTBEAT_INTERVAL)
            keep_starting(job)
    except BaseException:
        stop([job])
        raise
    _conclude(job, job.process.returncode)


def stop(jobs: Sequence[Job]) -> None:
    """Ask running jobs to write a checkpoint and to stop, and wait until they are gone; interrupted, kill them."""
    alive = [job for job in jobs if job.process is not None]
    try:
        for job in alive:
            assert job.process is not None
            job.process.terminate()
        deadline = time.monotonic() + _PATIENCE
        for job in alive:
            assert job.process is not None
            with suppress(subprocess.TimeoutExpired):
                job.process.wait(timeout=max(0.0, deadline - time.monotonic()))
    finally:
        for job in alive:
            assert job.process is not None
            job.process.kill()
            job.process.wait()
            job.seconds = time.monotonic() - job.began
            job.outcome, job.reason = INTERRUPTED, "with its sweep"
            _write_end(job)


def stop_all(directories: Sequence[Path]) -> None:
    """Ask runs on this machine to write a checkpoint and to stop, whoever started them, and wait until they have."""
    asked: set[int] = set()
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and (alive := [path for path in directories if _runs(path) and _is_here(path)]):
        for status in filter(None, map(read_status, alive)):
            if status.state == RUNNING and status.pid not in asked:
                asked.add(status.pid)
                with suppress(OSError):
                    os.kill(status.pid, signal.SIGTERM)
        time.sleep(_POLL)


def is_under_way(job: Job) -> bool:
    """Whether some process is at work on the run."""
    return _runs(job.directory)


def _runs(directory: Path) -> bool:
    with suppress(InputError):
        return current_status(directory).state == RUNNING
    return False


def _is_here(directory: Path) -> bool:
    """Whether the process that works on the run does so on this machine."""
    status = read_status(directory)
    return status is not None and status.host == socket.gethostname()


def _is_under_way(job: Job, display: ProgressDisplay) -> bool:
    """Whether another process is at work on the run."""
    if not _runs(job.directory):
        return False
    status = read_status(job.directory)
    where = f" in process {status.pid} on {status.host}" if status else ""
    if not job.reason:
        display.say(f"{job.label}: {ELSEWHERE}{where}; this sweep waits for it")
    job.reason = f"under way{where}"
    return True


def _still_runs(job: Job, display: ProgressDisplay) -> bool:
    """Show how a job is getting on, or fill in how it ended."""
    assert job.process is not None
    code = job.process.poll()
    if code is not None:
        _conclude(job, code)
        return False
    status = read_status(job.directory)
    if status is not None and status.pid == job.process.pid and status.state == RUNNING:
        display.show(job.label, status)
        keep_starting(job)
    return True


def _conclude(job: Job, code: int) -> None:
    """Fill in how a job ended, from its exit code and from what it wrote."""
    assert job.process is not None
    status = read_status(job.directory)
    own = status if status is not None and status.pid == job.process.pid else None
    job.seconds = time.monotonic() - job.began
    if code == UnderWayError.EXIT_CODE:
        job.outcome, job.seconds = ELSEWHERE, None
        return
    if (code == 0 or (own and own.state == FINISHED)) and is_finished(job.directory):
        job.outcome, job.reason = FINISHED, ""
    elif own and own.state == INTERRUPTED:  # somebody asked the job itself
        job.outcome, job.reason = INTERRUPTED, own.reason or ""
    elif -code in Stop.SIGNALS and (own is None or own.state == RUNNING):
        # Asked before it listened: its libraries were loading.
        job.outcome, job.reason = INTERRUPTED, f"by {_signal_name(-code)}"
    else:
        job.outcome = FAILED
        job.reason = (own and own.reason) or _why(job, code)
    _write_end(job)


def _why(job: Job, code: int) -> str:
    """Why a job failed that could not say so itself."""
    if code == -signal.SIGKILL:
        return "killed (out of memory?)"
    if code < 0:
        return f"killed by {_signal_name(-code)}"
    free = free_bytes(job.directory)
    if free < _FULL:
        return f"exit code {code}; the disk of {job.directory} is full ({size(free)} are free)"
    return _last_line(job.directory / LOG) or f"exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most realtime signals have none
        return f"signal {number}"


def _write_end(job: Job) -> None:
    """Write down how a job ended that did not come to it itself."""
    status = read_status(job.directory)
    if status is None or job.process is None or status.pid != job.process.pid or status.state != RUNNING:
        return
    ended = replace(status, state=job.outcome, phase="", remaining=None, reason=job.reason or None)
    with suppress(InputError):
        ended.write(job.directory)


def _give_up(jobs: Iterable[Job], outcome: str) -> None:
    """Leave jobs to others, or to the next command; none is on our list any more."""
    for job in jobs:
        job.outcome = outcome
        with suppress(InputError):
            update_status(job.directory, _give_back)


def _give_back(status: Status | None) -> Status | None:
    if status is None or not _is_queued_here(status):
        return None
    return dequeued(status, "its sweep ended before it began")


def _end(job: Job, outcome: str, display: ProgressDisplay) -> None:
    job.outcome = outcome
    if outcome in GOOD:
        job.reason = ""
    why = ", skipped" if outcome == SKIPPED else f" ({job.reason})" if job.reason else ""
    display.end(job.label, f"{outcome}{why}", seconds=None if outcome == SKIPPED else job.seconds)


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def command_of(overrides: Sequence[str], config_directory: str | None) -> list[str]:
    """Return the command that carries out one job alone: what the sweep asks for, as a single run."""
    extra = ["--config-dir", config_directory] if config_directory else []
    return [sys.executable, "-m", "attnspan.cli.train", *extra, *overrides, "hydra.mode=RUN"]
