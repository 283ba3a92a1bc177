"""How the jobs of a sweep ended, and tables of runs, for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from attnspan.errors import InputError
from attnspan.files import read_json
from attnspan.runs.layout import SUMMARY
from attnspan.runs.summary import describe_end
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


def make_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table without lines. ``overrides`` is left out if no row has any; only the last column wraps.

    Args:
        columns: their names; those of right-justified columns start with ``>``.
        rows: a cell for each column; a Text has its own style and overflow.
    """
    rows = list(rows)
    table = Table(box=None, padding=(0, 2, 0, 0))
    shown = [at for at, name in enumerate(columns) if name != "overrides" or any(row[at] for row in rows)]
    for at in shown:
        name = columns[at].removeprefix(">")
        table.add_column(Text(name), justify="left" if name == columns[at] else "right", no_wrap=at < len(columns) - 1)
    table.columns[-1].overflow = "fold"
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in (row[at] for at in shown)))
    return table


def print_outcomes(console: Console, jobs: Sequence[Job]) -> None:
    """Print a table: how every job ended, why it failed, and where its log is; and a line for each to remark on."""
    columns = ("arm", "data", ">seed", "overrides", "state", ">time", ">error rate", "reason, log")
    rows = [
        (job.arm, job.data, str(job.seed), job.varied, job.outcome, duration(job.seconds), _error_rate(job), why(job))
        for job in jobs
    ]
    console.print(make_table(columns, rows), highlight=False)
    for job in jobs:
        if words := remark(job):
            console.print(f"{job.label}: {words}", highlight=False, markup=False, soft_wrap=True)


def why(job: Job | None, reason: str | None = None) -> str:
    """Lines that explain how a job ended: why it failed, by default for ``reason``, and where its log is."""
    log = job.log if job is not None else None
    return "\n".join(filter(None, [(job and job.reason) or reason, short_path(log) if log else None]))


def remark(job: Job) -> str:
    """What to say of a job that is done and ended no better than chance; empty for all others."""
    return describe_end(_summary(job))


def _error_rate(job: Job) -> str:
    rate = _summary(job).get("test", {}).get("error_rate")
    return "" if rate is None else f"{rate:.3f}"


def _summary(job: Job) -> dict[str, Any]:
    """Empty where the job is not done, or its summary has been removed since."""
    with suppress(InputError):
        if job.outcome in SUCCESSFUL:
            return read_json(job.directory / SUMMARY)
    return {}


def short_path(path: Path) -> str:
    """A path relative to the working directory if it lies below it, else in full."""
    with suppress(ValueError):
        return str(path.absolute().relative_to(Path.cwd()))
    return str(path)
