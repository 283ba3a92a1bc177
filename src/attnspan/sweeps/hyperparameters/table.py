"""What came of a search, as a table, and the best trial with the command that runs it alone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from attnspan.errors import InputError
from attnspan.runs.layout import LOG
from attnspan.runs.status import FAILED, QUEUED, current_status
from attnspan.sweeps.hyperparameters.trials import Search, Tried
from attnspan.sweeps.plan import Plan
from attnspan.sweeps.processes import SKIPPED, readable
from attnspan.sweeps.progress import duration
from attnspan.sweeps.time_estimate import Times, makespan


def print_trials(console: Console, search: Search) -> None:
    """Print every trial with its settings, how it ended and its validation loss, and the best one.

    The test's numbers are left out: whoever chooses by them has tested on what was trained.
    """
    table = Table(box=None, padding=(0, 2, 0, 0))
    keys = list(dict.fromkeys(key for one in search.tried.values() for key in one.trial.settings))
    for name in ("trial", *keys, "state", "time", "validation loss"):
        table.add_column(escape(name), justify="left" if name in ("state", *keys) else "right", no_wrap=True)
    table.add_column("reason, log", overflow="fold")
    best = search.best
    for number, one in sorted(search.tried.items()):
        loss = one.trial.loss
        seconds = one.job.seconds if one.job is not None else None
        table.add_row(
            str(number),
            *(escape(_short(one.trial.settings.get(key, ""))) for key in keys),
            _state(one),
            duration(seconds) if seconds is not None else "",
            "" if loss is None else f"{loss:.4f}{' *' if one is best else '  '}",
            escape("\n".join(_explained(one))),
        )
    console.print(table, highlight=False)
    if best is not None and best.job is not None:
        settings = " ".join(f"{key}={_short(value)}" for key, value in best.trial.settings.items())
        for line in (
            f"best: trial {best.trial.number}, validation loss {best.trial.loss:.4f}, {settings}",
            f"run: {readable(best.job.directory)}",
            f"command: {command_line(best.job.command)}",
        ):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def print_search(console: Console, search: Search, plan: Plan) -> None:
    """Print how far a search is, and about how long the rest will take; nothing is started.

    Args:
        console: where to.
        search: its trials so far.
        plan: of the ends of its space.
    """
    if search.tried:
        print_trials(console, search)
    to_run = len(search.left) + search.to_come
    words = (
        f"dry run, nothing was started: {len(plan.jobs)} runs at the ends of the space can be run; "
        f"{max(search.n_trials, len(search.tried))} trials, {to_run} of them to run"
    )
    job, times = plan.jobs[0], Times(Path(plan.settings["runs_dir"]))
    takes = times.expected(data=job.data, arm=job.arm, updates=job.updates)
    if to_run:
        about = "a time unknown" if takes is None else f"about {duration(makespan([takes] * to_run, plan.n_jobs))}"
        words += f", in {about} with {plan.n_jobs} at a time"
    console.print(words, highlight=False, soft_wrap=True)


def command_line(command: Sequence[str]) -> str:
    """A job's command as a person types it."""
    return shlex.join(["attnspan-train", *list(command)[list(command).index("attnspan.cli.train") + 1 :]])


def _short(value: str) -> str:
    """Enough digits for people."""
    try:
        return f"{float(value):.4g}" if "." in value or "e" in value else value
    except ValueError:
        return value


def _state(one: Tried) -> str:
    if one.trial.loss is not None:
        return one.job.outcome if one.job is not None and one.job.outcome else SKIPPED
    if one.job is None:
        return FAILED
    if one.job.outcome:
        return one.job.outcome
    with suppress(InputError):
        return current_status(one.job.directory).state
    return QUEUED if one.trial.reason is None else FAILED


def _explained(one: Tried) -> list[str]:
    reason = (one.job.reason if one.job is not None else "") or one.trial.reason
    log = one.job.directory / LOG if one.job is not None else None
    return [*([reason] if reason else []), *([readable(log)] if log is not None and log.exists() else [])]
