"""Hyper-parameter search: its trials run in processes, several at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from attnspan.errors import InputError
from attnspan.files import read_json
from attnspan.runs.layout import SUMMARY
from attnspan.runs.run_lists import add_to_list
from attnspan.runs.status import FAILED
from attnspan.sweeps.job import SKIPPED, SUCCESSFUL, Job, SweepOptions
from attnspan.sweeps.processes import run_jobs
from attnspan.sweeps.queue import enqueue

if TYPE_CHECKING:  # optuna is an extra
    from attnspan.sweeps.hyperparameters.journal import Journal, Trial

OBJECTIVE = "best_validation_loss"
"""What the search minimises: a key of a run's summary. The test split is never used."""


@dataclass(kw_only=True)
class TrialRun:
    """A trial and its run."""

    trial: Trial
    job: Job | None  # None if the trial's settings make no run, for the trial's reason


@dataclass(kw_only=True)
class Search:
    """The trials of a search."""

    n_trials: int  # all of them
    make_job: Callable[[Trial], Job]  # raises InputError if the trial's settings make no run
    listed: Path  # the file that lists the run directories
    runs: dict[int, TrialRun] = field(default_factory=dict)  # the trials started so far, by number

    @property
    def jobs(self) -> list[Job]:
        """The jobs of the trials, by number."""
        return [run.job for _, run in sorted(self.runs.items()) if run.job is not None]

    @property
    def unfinished(self) -> list[Trial]:
        """Trials without a loss: first those that were running, then those that failed."""
        trials = [run.trial for _, run in sorted(self.runs.items()) if run.trial.loss is None]
        return sorted(trials, key=lambda trial: trial.reason is not None)

    @property
    def to_start(self) -> int:
        """Number of trials that have not started."""
        return max(0, self.n_trials - len(self.runs))

    @property
    def is_done(self) -> bool:
        """Whether all trials have a loss."""
        return not self.unfinished and not self.to_start

    @property
    def best(self) -> TrialRun | None:
        """The trial with the least loss; the earlier one of a tie."""
        done = [(run.trial.loss, number) for number, run in self.runs.items() if run.trial.loss is not None]
        return self.runs[min(done)[1]] if done else None

    def add(self, trials: Iterable[Trial]) -> None:
        """Add trials of the journal."""
        for trial in trials:
            try:
                job = self.make_job(trial)
            except InputError as error:
                self.runs[trial.number] = TrialRun(trial=replace(trial, reason=str(error)), job=None)
            else:
                job.outcome = SKIPPED if trial.loss is not None else ""
                self.runs[trial.number] = TrialRun(trial=trial, job=job)

    def run(self, journal: Journal, options: SweepOptions, console: Console) -> None:
        """Resume unfinished trials, retry failed ones, and start new ones until there are ``n_trials``.

        Finished trials are not run again, and a trial that fails does not affect the others.

        Raises:
            InputError: the journal or the list cannot be written; all trials are stopped.
            KeyboardInterrupt: SIGINT or SIGTERM came; likewise.
        """
        self.add(journal.trials)
        unfinished = self.unfinished
        if self.runs:
            done, to_do = len(self.runs) - len(unfinished), len(unfinished) + self.to_start
            console.print(f"search: {done} trials done before, {to_do} to do", highlight=False)
        run_jobs(
            [],
            options,
            console,
            next_job=lambda: self._next_job(journal, unfinished, options.rerun),
            expected=len(unfinished) + self.to_start,
            on_end=lambda job: self._record(journal, job),
        )

    def _next_job(self, journal: Journal, unfinished: list[Trial], rerun: bool) -> Job | None:
        """The job of the next trial, queued."""
        while unfinished or self.to_start:
            trial = unfinished.pop(0) if unfinished else journal.ask()
            self.add([trial])
            run = self.runs[trial.number]
            if run.job is not None:
                add_to_list(self.listed, [job.directory for job in self.jobs])
                enqueue([run.job], rerun=rerun)
                return run.job
            journal.failed(trial, run.trial.reason or "")
        return None

    def _record(self, journal: Journal, job: Job) -> None:
        """Record how the job of a trial ended."""
        (run,) = (run for run in self.runs.values() if run.job is job)
        loss = _loss(job) if job.outcome in SUCCESSFUL else None
        if loss is not None:
            journal.finished(run.trial, loss)
            run.trial = replace(run.trial, loss=loss, reason=None)
        elif job.outcome in (FAILED, *SUCCESSFUL):  # an interrupted trial is resumed by the next search
            job.outcome = FAILED
            job.reason = job.reason or f"{job.directory / SUMMARY}: has no {OBJECTIVE}"
            journal.failed(run.trial, job.reason)
            run.trial = replace(run.trial, reason=job.reason)


def _loss(job: Job) -> float | None:
    try:
        loss = float(read_json(job.directory / SUMMARY)[OBJECTIVE])
    except (InputError, KeyError, TypeError, ValueError):
        return None
    return loss if math.isfinite(loss) else None
