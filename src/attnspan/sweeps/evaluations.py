"""Evaluations of finished runs as jobs, which are launched as the runs of a sweep are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from attnspan.config.evaluation import EVALUATION, evaluation_id
from attnspan.config.instantiate import build, refuse_foreign_targets
from attnspan.errors import InputError
from attnspan.evaluation.prepared_test import evaluated_examples
from attnspan.runs.layout import EVALUATIONS, JOB, run_of
from attnspan.runs.provenance import code_state
from attnspan.runs.status import current_status
from attnspan.sweeps.job import Job, read_job
from attnspan.sweeps.outcomes import make_table, short_path
from attnspan.sweeps.plan import NEW, Plan, jobs_at_once


@dataclass(kw_only=True)
class EvaluationJob(Job):
    """One evaluation."""

    trusted: Sequence[str] = ()  # packages whose classes the run's config may name, besides attnspan

    def __post_init__(self) -> None:
        trusted = [word for package in self.trusted for word in ("--trusted", package)]
        self.arguments = [sys.executable, "-m", "attnspan.cli.evaluation_job", str(self.directory), *trusted]
        super().__post_init__()
        self.data, self.varied = self.config[EVALUATION]["data_name"], self.config[EVALUATION]["name"]
        self.updates = 0


@dataclass(kw_only=True)
class EvaluationPlan(Plan):
    """The evaluations of a command."""

    name: str

    @property
    def study(self) -> str:
        """The name of the evaluations."""
        return self.name

    def name_the_unnamed(self) -> None:
        """Evaluations are named after what is asked."""

    @property
    def listed(self) -> Path:
        """The file that lists the evaluations, ``<runs_dir>/evaluations/<name>.txt``."""
        return runs_directory(run_of(self.jobs[0].directory)) / EVALUATIONS / f"{self.name}.txt"

    @property
    def reports(self) -> list[tuple[str, str]]:
        """(evaluations, name) of the report."""
        return [(f"@{short_path(self.listed)}", self.name)]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of one run."""

    run: Path
    config: dict[str, Any]
    """Made by :func:`attnspan.config.evaluation.evaluation_config`."""
    command: str


def runs_directory(run: Path) -> Path:
    """The directory of ``<data>/<arm>/<run id>/``."""
    return run.absolute().parents[2]


def plan_evaluations(
    requests: Sequence[Request], *, name: str, n_jobs: int | None, trusted: Sequence[str], console: Console
) -> EvaluationPlan:
    """Prepare the data, give every evaluation its directory, and check that it can be carried out.

    Args:
        requests: one for each evaluation.
        name: of all of them.
        n_jobs: most jobs at once; None for as many as the cores allow, or 1 on a GPU.
        trusted: packages whose classes a config may name, besides attnspan.
        console: takes lines for people.

    Raises:
        InputError: one line with everything that is wrong; no job was started.
    """
    jobs: dict[Path, Job] = {}
    complaints: list[str] = []
    code = code_state()
    for request in requests:
        config = request.config
        try:
            check(config, trusted)
            split = evaluated_examples(config, run=request.run).prepare()
        except InputError as error:
            complaints.append(str(error))
            continue
        directory = _directory(request.run, config, evaluation_id(config, data_fingerprint=split.fingerprint))
        command, of_code = request.command, code
        jobs.setdefault(
            directory, EvaluationJob(config=config, directory=directory, command=command, code=of_code, trusted=trusted)
        )
    if complaints:
        raise InputError("; ".join(dict.fromkeys(complaints)))
    configs = [request.config for request in requests]
    at_once = jobs_at_once(configs, n_jobs, console)
    return EvaluationPlan(jobs=list(jobs.values()), settings=configs[0], n_jobs=at_once, name=name)


def check(config: dict[str, Any], trusted: Sequence[str]) -> None:
    """Build the decoding strategy.

    Raises:
        InputError: it refuses a setting, or the config names a class that is not trusted.
    """
    refuse_foreign_targets([config["decoding"], config[EVALUATION]["data"]], ("attnspan", *trusted))
    build(config, "decoding")


def _directory(run: Path, config: dict[str, Any], name: str) -> Path:
    """``RUN/evaluations/<name>-<hash>``; what was asked before keeps the name that it had then."""
    before = sorted((run / EVALUATIONS).glob(f"*-{name}"))
    return before[0] if before else run / EVALUATIONS / f"{config[EVALUATION]['name']}-{name}"


def read_evaluation_job(directory: Path, trusted: Sequence[str]) -> Job:
    """Read the ``job.yaml`` of an evaluation; raises InputError if it is missing or damaged."""
    job = read_job(directory)
    if EVALUATION not in job.config:
        raise InputError(f"{directory / JOB}: is no evaluation")
    return EvaluationJob(
        config=job.config, directory=directory, command=job.command, code=job.code, trusted=tuple(trusted)
    )


def print_evaluations(console: Console, plan: EvaluationPlan) -> None:
    """Print the evaluations with their states."""
    rows = []
    for job in plan.jobs:
        try:
            state = current_status(job.directory).state
        except InputError:
            state = NEW
        rows.append((job.directory.name, job.arm, job.data, str(job.seed), state, short_path(job.directory)))
    columns = ("evaluation", "arm", "data", ">seed", "state", "directory")
    console.print(make_table(columns, rows), highlight=False)
    console.print(f"dry run, nothing was started: {len(plan.jobs)} evaluations", highlight=False)
