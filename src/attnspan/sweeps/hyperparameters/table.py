"""The trials of a search as a table, and the best one with the command line that runs it alone."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from rich.console import Console

from attnspan.errors import InputError
from attnspan.runs.status import FAILED, QUEUED, current_status
from attnspan.sweeps.hyperparameters.search import Search, TrialRun
from attnspan.sweeps.job import SKIPPED
from attnspan.sweeps.outcomes import make_table, remark, short_path, why
from attnspan.sweeps.plan import Plan
from attnspan.sweeps.progress import duration
from attnspan.sweeps.time_estimate import RunTimes, makespan


def print_trials(console: Console, search: Search) -> None:
    """Print every trial with its settings, outcome and validation loss, and the best one.

    Results on the test split are left out: settings must not be chosen by them.
    """
    runs = [run for _, run in sorted(search.runs.items())]
    keys = list(dict.fromkeys(key for run in search.runs.values() for key in run.trial.settings))
    best = search.best
    rows = [
        (
            str(run.trial.number),
            *(_short(run.trial.settings.get(key, "")) for key in keys),
            _state(run),
            duration(run.job.seconds if run.job is not None else None),
            "" if run.trial.loss is None else f"{run.trial.loss:.4f}{' *' if run is best else '  '}",
            why(run.job, run.trial.reason),
        )
        for run in runs
    ]
    columns = (">trial", *keys, "state", ">time", ">validation loss", "reason, log")
    console.print(make_table(columns, rows), highlight=False)
    if best is not None and best.job is not None:
        settings = " ".join(f"{key}={_short(value)}" for key, value in best.trial.settings.items())
        for line in (
            f"best: trial {best.trial.number}, validation loss {best.trial.loss:.4f}, {settings}",
            f"run: {short_path(best.job.directory)}",
            f"command: {best.job.command}",
            *filter(None, [remark(best.job)]),
        ):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def print_search(console: Console, search: Search, plan: Plan) -> None:
    """Print the trials so far, and how long the others will take; ``plan`` has the corners of the space."""
    if search.runs:
        print_trials(console, search)
    to_run = len(search.unfinished) + search.to_start
    words = (
        f"dry run, nothing was started: {len(plan.jobs)} runs at the ends of the space can be run; "
        f"{max(search.n_trials, len(search.runs))} trials, {to_run} of them to run"
    )
    job, times = plan.jobs[0], RunTimes(Path(plan.settings["runs_dir"]))
    takes = times.expected(data=job.data, arm=job.arm, updates=job.updates)
    if to_run:
        time = "an unknown time" if takes is None else f"about {duration(makespan([takes] * to_run, plan.n_jobs))}"
        words += f", in {time} with {plan.n_jobs} at once"
    console.print(words, highlight=False, soft_wrap=True)


def _short(value: str) -> str:
    """A value with four significant digits."""
    try:
        return f"{float(value):.4g}" if "." in value or "e" in value else value
    except ValueError:
        return value


def _state(run: TrialRun) -> str:
    if run.job is not None and run.job.outcome:
        return run.job.outcome
    if run.trial.loss is not None:
        return SKIPPED
    if run.job is None:
        return FAILED
    with suppress(InputError):
        return current_status(run.job.directory).state
    return QUEUED if run.trial.reason is None else FAILED
