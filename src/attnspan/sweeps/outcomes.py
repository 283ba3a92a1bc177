"""How the jobs of a sweep ended, for people."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from attnspan.errors import InputError
from attnspan.files import read_json
from attnspan.runs.layout import LOG, SUMMARY
from attnspan.sweeps.job import SKIPPED, SUCCESSFUL, Job
from attnspan.sweeps.progress import ProgressDisplay, duration


def show_skipped(jobs: Sequence[Job], display: ProgressDisplay) -> list[Job]:
    """Show the jobs that are done already, and return the others."""
    for job in jobs:
        if job.outcome:
            display.finish(job.label, f"{job.outcome}, skipped")
    return [job for job in jobs if not job.outcome]


def show_outcome(job: Job, display: ProgressDisplay) -> None:
    """Show how a job ended."""
    why = ", skipped" if job.outcome == SKIPPED else f" ({job.reason})" if job.reason else ""
    display.finish(job.label, f"{job.outcome}{why}", seconds=None if job.outcome == SKIPPED else job.seconds)


def print_outcomes(console: Console, jobs: Sequence[Job]) -> None:
    """Print a table: how every job ended, why it failed, and where its log is."""
    with_varied = any(job.varied for job in jobs)
    names = ["arm", "data", "seed", *(["overrides"] if with_varied else []), "state", "time", "error rate"]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, justify="right" if name in ("seed", "time", "error rate") else "left", no_wrap=True)
    table.add_column("reason, log", overflow="fold")
    for job in jobs:
        log = job.directory / LOG
        table.add_row(
            job.arm,
            job.data,
            str(job.seed),
            *([escape(job.varied)] if with_varied else []),
            job.outcome,
            duration(job.seconds) if job.seconds is not None else "",
            _error_rate(job),
            escape("\n".join([*([job.reason] if job.reason else []), *([short_path(log)] if log.exists() else [])])),
        )
    console.print(table, highlight=False)


def _error_rate(job: Job) -> str:
    with suppress(InputError, KeyError):  # the summary may have been removed since
        if job.outcome in SUCCESSFUL:
            return f"{read_json(job.directory / SUMMARY)['test']['error_rate']:.3f}"
    return ""


def short_path(path: Path) -> str:
    """A path relative to the working directory if it lies below it, else in full."""
    with suppress(ValueError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path)
