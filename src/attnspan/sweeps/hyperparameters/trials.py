"""A search carried out: its trials side by side, each a run in a process of its own."""

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
from attnspan.runs.status import FAILED
from attnspan.sweeps.processes import GOOD, SKIPPED, Job, enqueue, run_jobs, write_list

if TYPE_CHECKING:  # optuna is an extra
    from attnspan.sweeps.hyperparameters.journal import Journal, Trial

LOSS = "best_validation_loss"
"""What a search makes small, by its name in a run's summary. Test has no say."""


@dataclass(kw_only=True)
class Tried:
    """A trial, and the run that carries it out.

    Attributes:
        trial: as the journal has it.
        job: its run; None where the trial's settings make none, for the trial's reason.
    """

    trial: Trial
    job: Job | None


@dataclass(kw_only=True)
class Search:
    """The trials of a search.

    Attributes:
        n_trials: how many there shall be in all.
        make_job: the run of a trial; raises InputError where its settings make none.
        listed: the file that lists the run directories.
        tried: the trials begun, by number.
    """

    n_trials: int
    make_job: Callable[[Trial], Job]
    listed: Path
    tried: dict[int, Tried] = field(default_factory=dict)

    @property
    def jobs(self) -> list[Job]:
        """The runs of the trials, by number."""
        return [one.job for _, one in sorted(self.tried.items()) if one.job is not None]

    @property
    def left(self) -> list[Trial]:
        """Trials without a loss: what was under way first, then what failed."""
        trials = [one.trial for _, one in sorted(self.tried.items()) if one.trial.loss is None]
        return sorted(trials, key=lambda trial: trial.reason is not None)

    @property
    def to_come(self) -> int:
        """How many trials have not begun."""
        return max(0, self.n_trials - len(self.tried))

    @property
    def is_done(self) -> bool:
        """Whether all trials have a loss."""
        return not self.left and not self.to_come

    @property
    def best(self) -> Tried | None:
        """The trial with the least loss; of two alike the earlier one."""
        done = [(one.trial.loss, number) for number, one in self.tried.items() if one.trial.loss is not None]
        return self.tried[min(done)[1]] if done else None

    def take_up(self, trials: Iterable[Trial]) -> None:
        """Fill in trials that were begun."""
        for trial in trials:
            try:
                job = self.make_job(trial)
            except InputError as error:
                self.tried[trial.number] = Tried(trial=replace(trial, reason=str(error)), job=None)
            else:
                job.outcome = SKIPPED if trial.loss is not None else ""
                self.tried[trial.number] = Tried(trial=trial, job=job)

    def run(
        self, journal: Journal, *, n_jobs: int, threads: int, rerun: bool, fail_fast: bool, console: Console
    ) -> None:
        """Go on with what was left, try again what failed, and try more until there are enough.

        A trial that is done is not run again, and one that fails leaves the others alone.

        Args:
            journal: where trials come from, and where their ends are written.
            n_jobs: how many side by side.
            threads: CPU threads of each.
            rerun: compute also what a run has computed before.
            fail_fast: stop at the first trial that fails.
            console: for progress.

        Raises:
            InputError: the journal or the list cannot be written; no trial runs on.
            KeyboardInterrupt: SIGINT or SIGTERM came; likewise.
        """
        self.take_up(journal.trials)
        left = self.left
        if self.tried:
            words = f"search: {len(self.tried) - len(left)} trials done before, {len(left) + self.to_come} to do"
            console.print(words, highlight=False)
        numbers: dict[str, int] = {}

        def more() -> Job | None:
            while left or self.to_come:
                trial = left.pop(0) if left else journal.ask()
                self.take_up([trial])
                tried = self.tried[trial.number]
                if tried.job is not None:
                    numbers[tried.job.label] = trial.number
                    write_list(self.listed, self.jobs)
                    enqueue([tried.job], rerun=rerun)
                    return tried.job
                journal.failed(trial, tried.trial.reason or "")
            return None

        def ended(job: Job) -> None:
            tried = self.tried[numbers[job.label]]
            loss = _loss(job) if job.outcome in GOOD else None
            if loss is not None:
                journal.finished(tried.trial, loss)
                tried.trial = replace(tried.trial, loss=loss, reason=None)
            elif job.outcome in (FAILED, *GOOD):  # one that was interrupted goes on next time
                job.outcome = FAILED
                job.reason = job.reason or f"{job.directory / SUMMARY}: has no {LOSS}"
                journal.failed(tried.trial, job.reason)
                tried.trial = replace(tried.trial, reason=job.reason)

        run_jobs(
            [],
            n_jobs=n_jobs,
            threads=threads,
            rerun=rerun,
            fail_fast=fail_fast,
            console=console,
            more=more,
            to_come=len(left) + self.to_come,
            ended=ended,
        )


def _loss(job: Job) -> float | None:
    try:
        loss = float(read_json(job.directory / SUMMARY)[LOSS])
    except (InputError, KeyError, TypeError, ValueError):
        return None
    return loss if math.isfinite(loss) else None
