"""From the configs of a sweep to its jobs. The data is prepared, and every job is checked before the first starts."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from attnspan.config.identity import claim, run_directory
from attnspan.config.threads import cores_of
from attnspan.errors import InputError
from attnspan.runs.completeness import is_finished
from attnspan.runs.provenance import code_state
from attnspan.runs.run_lists import read_list
from attnspan.runs.status import FINISHED, current_status
from attnspan.sweeps.job import SUCCESSFUL, Job, SweepOptions
from attnspan.sweeps.outcomes import make_table
from attnspan.sweeps.preflight import refuse_unfit
from attnspan.sweeps.progress import duration
from attnspan.sweeps.time_estimate import RunTimes, makespan

NEW = "new"


@dataclass(kw_only=True)
class Plan:
    """The jobs of a sweep, and what they have in common."""

    jobs: list[Job]  # each run once, in the order in which to start them
    settings: dict[str, Any]  # config of the first
    n_jobs: int  # jobs at once
    name: str = "sweep"  # of a sweep that has none

    @property
    def options(self) -> SweepOptions:
        """How to run the jobs."""
        return SweepOptions(
            n_jobs=self.n_jobs, **{key: self.settings[key] for key in ("threads", "rerun", "fail_fast")}
        )

    @property
    def study(self) -> str:
        """The name of the sweep."""
        return self.settings["study"] or self.name

    def name_the_unnamed(self) -> None:
        """Give a sweep without a name one whose list has no other runs: unnamed sweeps have nothing in common."""
        own = {job.directory.absolute() for job in self.jobs}
        numbers = itertools.count(2)
        while (
            not self.settings["study"]
            and self.listed.is_file()
            and not {Path(line).absolute() for line in read_list(self.listed)} <= own
        ):
            self.name = f"sweep-{next(numbers)}"

    @property
    def listed(self) -> Path:
        """The file that lists the run directories."""
        return Path(self.settings["runs_dir"], f"{self.study}.txt")

    @property
    def reports(self) -> list[tuple[str, str]]:
        """(runs, name) of each report: a report is about one data set, and a sweep may have several."""
        data = dict.fromkeys(job.data for job in self.jobs)
        if len(data) == 1:
            return [(f"@{self.listed}", self.study)]
        return [(str(self.listed.parent / name), f"{self.study}/{name}") for name in data]

    @property
    def is_done(self) -> bool:
        """Whether every run is finished."""
        return all(job.outcome in SUCCESSFUL for job in self.jobs)


def make_plan(
    configs: Sequence[dict[str, Any]],
    job_overrides: Sequence[Sequence[str]],
    *,
    config_directory: str | None,
    n_jobs: int | None,
    console: Console,
) -> Plan:
    """Prepare the data, give every job its directory, and check that it can run.

    With ``dry_run`` nothing is written, and no data is prepared. ``job_overrides`` and ``config_directory`` come from
    the command line. ``n_jobs`` is the most jobs at once; None for as many as the cores allow, or 1 on a GPU.

    Raises:
        InputError: one line with everything that is wrong; no job was started.
    """
    fingerprints, complaints = _fingerprints(configs, console)
    jobs: dict[Path, Job] = {}
    new: list[dict[str, Any]] = []
    varied, code = _varied(job_overrides), code_state()
    for config, overrides in zip(configs, job_overrides, strict=True):
        fingerprint = fingerprints.get(repr(config["data"]))
        if fingerprint is None:
            continue
        directory = run_directory(config, data_fingerprint=fingerprint)
        try:
            claim(directory, config, data_fingerprint=fingerprint)
        except InputError as error:
            complaints.append(str(error))
        if directory in jobs:
            continue
        if config["rerun"] or not is_finished(directory):
            new.append(config)
        others = [word for word in overrides if word in varied and word.partition("=")[0] not in ("decoder", "seed")]
        command = command_line(overrides, config_directory)
        facts: dict[str, Any] = {"code": code, "data_fingerprint": fingerprint, "varied": " ".join(others)}
        jobs[directory] = Job(config=config, directory=directory, command=command, **facts)
    try:
        for remark in refuse_unfit(new):
            console.print(remark, highlight=False, soft_wrap=True)
    except InputError as error:
        complaints.append(str(error))
    if complaints:
        raise InputError("; ".join(dict.fromkeys(complaints)))
    return Plan(jobs=list(jobs.values()), settings=configs[0], n_jobs=jobs_at_once(configs, n_jobs, console))


def jobs_at_once(configs: Sequence[dict[str, Any]], n_jobs: int | None, console: Console) -> int:
    """``n_jobs``, or as many as the cores allow if that is None or more; 1 on a GPU if it is None."""
    most = min(_side_by_side(config) for config in configs)
    if n_jobs is not None and n_jobs > most and not _may_use_gpu(configs[0]):
        words = f"n_jobs={n_jobs}: only {most} at once, which keep all cores of this machine busy"
        console.print(words, highlight=False)
        n_jobs = most
    return n_jobs or most


def job_for(
    config: dict[str, Any],
    overrides: Sequence[str],
    config_directory: str | None,
    *,
    plan: Plan,
    varied: str,
) -> Job:
    """The job of one config, with the code of ``plan``, and its data if it has the same settings.

    Raises:
        InputError: its directory holds another run.
    """
    from attnspan.config.instantiate import build_corpus
    from attnspan.data.pipeline.prepare import fingerprint_of

    found = (job.data_fingerprint for job in plan.jobs if job.config["data"] == config["data"])
    fingerprint = next(found, None) or fingerprint_of(build_corpus(config))
    directory = run_directory(config, data_fingerprint=fingerprint)
    claim(directory, config, data_fingerprint=fingerprint)
    command, code = command_line(overrides, config_directory), plan.jobs[0].code
    facts: dict[str, Any] = {"code": code, "data_fingerprint": fingerprint, "varied": varied}
    return Job(config=config, directory=directory, command=command, **facts)


def command_line(overrides: Sequence[str], config_directory: str | None) -> str:
    """The command line that starts one job alone, also where ``overrides`` name a sweep."""
    options = ["--config-dir", config_directory] if config_directory else []
    return shlex.join(["attnspan-train", *options, *overrides, "hydra.mode=RUN"])


def print_plan(console: Console, plan: Plan) -> None:
    """Print the jobs with their states, and how long they will take."""
    times = RunTimes(Path(plan.settings["runs_dir"]))
    rows = []
    left: list[float] = []
    unknown = 0
    for job in plan.jobs:
        state, share = _state(job)
        whole = times.expected(data=job.data, arm=job.arm, updates=job.updates)
        if state == FINISHED and not plan.settings["rerun"]:
            takes = ""
        elif whole is None:
            takes, unknown = "unknown", unknown + 1
        else:
            left.append(whole * (1.0 if plan.settings["rerun"] else share))
            takes = duration(left[-1])
        rows.append((job.directory.name, job.arm, job.data, str(job.seed), job.varied, state, takes))
    columns = ("run id", "arm", "data", ">seed", "overrides", "state", ">takes about")
    console.print(make_table(columns, rows), highlight=False)
    console.print(_total(plan, left, unknown, times.processors), highlight=False, soft_wrap=True)


def _total(plan: Plan, left: Sequence[float], unknown: int, processors: Iterable[str]) -> str:
    to_run = len(left) + unknown
    words = f"dry run, nothing was started: {len(plan.jobs)} runs, {to_run} of them to run"
    if not to_run:
        return words
    if not left:
        return f"{words}; the time is unknown, because no run of these arms and data has finished yet"
    words += f", in about {duration(makespan(left, plan.n_jobs))} with {plan.n_jobs} at once"
    words = f"{words}, and {unknown} whose time is unknown" if unknown else words
    # The jobs may go to other machines, as those of a cluster do.
    return f"{words}; judged by finished runs on {named}" if (named := ", ".join(sorted(processors))) else words


def _state(job: Job) -> tuple[str, float]:
    """The state of a job's run, and the share of it that is still to do."""
    try:
        status = current_status(job.directory)
    except InputError:
        return NEW, 1.0
    return status.state, 1 - min(1.0, status.update / job.updates)


def _fingerprints(configs: Sequence[dict[str, Any]], console: Console) -> tuple[dict[str, str], list[str]]:
    """Prepare every data set. Returns the fingerprints by data config, and what is wrong with the others."""
    from attnspan.config.instantiate import build_corpus
    from attnspan.data.pipeline.prepare import fingerprint_of, is_prepared, prepare

    found: dict[str, str] = {}
    complaints: list[str] = []
    for config in {repr(config["data"]): config for config in configs}.values():
        try:
            corpus = build_corpus(config)
            if not config["dry_run"]:
                console.print(f"preparing data: {config['data_name']}", highlight=False)
                prepared = prepare(corpus, cache_dir=Path(config["cache_dir"]))
                for line in prepared.remarks:
                    console.print(line, highlight=False, soft_wrap=True)
                found[repr(config["data"])] = prepared.fingerprint
                continue
            name = found[repr(config["data"])] = fingerprint_of(corpus)
            if not is_prepared(name, cache_dir=Path(config["cache_dir"])):
                console.print(
                    f"{config['data_name']} is not prepared yet: its rows are checked when the runs start",
                    highlight=False,
                )
        except InputError as error:
            complaints.append(str(error))
    return found, complaints


def _side_by_side(config: dict[str, Any]) -> int:
    """As many runs as the cores allow; one if they would share a GPU."""
    if _may_use_gpu(config):
        return 1
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available // cores_of(config))


def _may_use_gpu(config: dict[str, Any]) -> bool:
    return config["trainer"]["accelerator"] != "cpu" and shutil.which("nvidia-smi") is not None


def _varied(job_overrides: Sequence[Sequence[str]]) -> set[str]:
    """Overrides that not every job has."""
    first, *others = [set(overrides) for overrides in job_overrides]
    return set().union(first, *others) - first.intersection(*others)
