"""Jobs of a sweep side by side, each in a process of its own, so that none can harm another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from attnspan.errors import InputError
from attnspan.progress import ProgressDisplay, duration
from attnspan.rundir import LOG, SUMMARY, is_finished, read_json, write_text
from attnspan.status import AT_WORK, FAILED, FINISHED, INTERRUPTED, STARTING, Status, read_status

SKIPPED = "finished before"
_POLL = 0.2  # seconds


@dataclass(kw_only=True)
class Job:
    """One run of a sweep.

    Attributes:
        arm: of the run.
        data: of the run.
        seed: of the run.
        directory: of the run.
        command: starts it.
        label: what tells it from the other jobs, for people.
        outcome: how it ended; empty while it has not.
        reason: why it failed, one line.
        seconds: how long it took.
    """

    arm: str
    data: str
    seed: int
    directory: Path
    command: Sequence[str]
    label: str
    outcome: str = ""
    reason: str = ""
    seconds: float | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    began: float = 0.0


def run_jobs(jobs: Sequence[Job], *, at_a_time: int, threads: int, rerun: bool, console: Console) -> None:
    """Run all jobs, ``at_a_time`` side by side, and fill in how each ended.

    What is finished already is not run again unless ``rerun``. A job that fails leaves the others alone. Ctrl-C, or
    SIGTERM, stops the running ones and comes back as KeyboardInterrupt.

    Args:
        jobs: in the order in which to start them.
        at_a_time: how many at once.
        threads: CPU threads of each.
        rerun: compute again what is finished.
        console: for progress.
    """
    waiting: list[Job] = []
    with ProgressDisplay(console=console, jobs=len(jobs), at_a_time=at_a_time) as display:
        for job in jobs:
            if is_finished(job.directory) and not rerun:
                job.outcome = SKIPPED
                display.end(job.label, "finished before, skipped")
            else:
                waiting.append(job)
        running: list[Job] = []
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            while waiting or running:
                while waiting and len(running) < at_a_time:
                    running.append(waiting.pop(0))
                    _start(running[-1], threads)
                    display.show(running[-1].label, Status(state=STARTING))
                time.sleep(_POLL)
                for job in list(running):
                    _look(job, display)
                    if job.outcome:
                        running.remove(job)
        except BaseException:  # whatever it is, no job is left behind without us
            _stop(running)
            for job in [*running, *waiting]:
                job.outcome = INTERRUPTED if job in running else "not started"
            raise
        finally:
            signal.signal(signal.SIGTERM, before)


def write_list(path: Path, jobs: Sequence[Job]) -> None:
    """Write the run directories of a sweep, one a line: ``attnspan-report @path`` reads it."""
    write_text(path, "".join(f"{job.directory}\n" for job in jobs))


def print_outcomes(console: Console, jobs: Sequence[Job]) -> None:
    """Print how every job ended, and what to read where one failed."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("arm", "data", "seed", "state", "time", "error rate"):
        table.add_column(name, justify="right" if name in ("seed", "time", "error rate") else "left", no_wrap=True)
    for job in jobs:
        rate = ""
        if job.outcome in (FINISHED, SKIPPED):
            rate = f"{read_json(job.directory / SUMMARY)['test']['error_rate']:.3f}"
        took = duration(job.seconds) if job.seconds is not None else ""
        table.add_row(job.arm, job.data, str(job.seed), job.outcome, took, rate)
    console.print(table)
    for job in jobs:
        if job.outcome == FAILED:
            line = f"failed: {job.label}: {job.reason}\n        log: {job.directory / LOG}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _start(job: Job, threads: int) -> None:
    """Start a job; what it prints goes to the log in its directory."""
    environment = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    try:
        job.directory.mkdir(parents=True, exist_ok=True)
        with (job.directory / LOG).open("ab") as log:
            # A session of its own: Ctrl-C reaches it through us, once.
            job.process = subprocess.Popen(
                job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
    except OSError as error:
        raise InputError(f"{job.directory}: cannot be written ({error.strerror})") from error
    job.began = time.monotonic()


def _look(job: Job, display: ProgressDisplay) -> None:
    """Show how a job is getting on, and how it ended once it has."""
    assert job.process is not None
    code = job.process.poll()
    status = read_status(job.directory)
    mine = status is not None and status.pid == job.process.pid
    if code is None:
        if status is not None and mine and status.state in AT_WORK:
            display.show(job.label, status)
        return
    job.seconds = time.monotonic() - job.began
    if code == 0 and is_finished(job.directory):
        job.outcome = FINISHED
        display.end(job.label, FINISHED, seconds=job.seconds)
        return
    job.outcome = FAILED
    if status is not None and mine and status.reason:
        job.reason = status.reason
    elif code < 0:
        job.reason = f"killed by {signal.Signals(-code).name}"
    else:
        job.reason = _last_line(job.directory / LOG) or f"exit code {code}"
    display.end(job.label, f"failed ({job.reason})", seconds=job.seconds)


def _stop(jobs: Sequence[Job]) -> None:
    """Interrupt running jobs, and wait until they are gone."""
    for job in jobs:
        if job.process is not None:
            job.process.terminate()
    for job in jobs:
        if job.process is not None:
            try:
                job.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                job.process.kill()


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def command_of(overrides: Sequence[str], config_directory: str | None) -> list[str]:
    """Return the command that carries out one job alone: what the sweep asks for, as a single run."""
    extra = ["--config-dir", config_directory] if config_directory else []
    return [sys.executable, "-m", "attnspan.train", *extra, *overrides, "hydra.mode=RUN"]
