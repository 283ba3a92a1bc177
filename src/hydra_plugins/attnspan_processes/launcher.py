"""A Hydra launcher that runs each job in a process of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ProcessLauncher(Launcher):
    """Checks every job of the sweep before it starts the first; :mod:`attnspan.sweep` runs them.

    Args:
        at_a_time: jobs side by side; None for cores / threads, or 1 on a GPU.

    Raises:
        ValueError: ``at_a_time`` is not a positive whole number.
    """

    def __init__(self, at_a_time: int | None = None) -> None:
        if at_a_time is not None and (not isinstance(at_a_time, int) or at_a_time < 1):
            raise ValueError(
                f"hydra.launcher.at_a_time: must be null or a whole number of at least 1, not {at_a_time!r}"
            )
        self.at_a_time = at_a_time
        self.config: DictConfig
        self.hydra_context: HydraContext

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra hands over."""
        self.config = config
        self.hydra_context = hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs.

        Raises:
            InputError: a job cannot be run as it is; none was started.
            SystemExit: a job failed.
        """
        # Hydra imports every plugin at every start, so what is heavy waits until here.
        from rich.console import Console

        from attnspan.sweep import print_outcomes, run_jobs, write_list

        console = Console()
        configs = self._compose(job_overrides)
        jobs = self._plan(configs, job_overrides, console)
        threads = configs[0]["threads"]
        at_a_time = self.at_a_time or _side_by_side(configs[0])
        study = configs[0]["study"] or "sweep"
        listed = Path(configs[0]["runs_dir"], f"{study}.txt")
        write_list(listed, jobs)
        try:
            run_jobs(jobs, at_a_time=at_a_time, threads=threads, rerun=configs[0]["rerun"], console=console)
        finally:
            print_outcomes(console, jobs)
        for runs, name in _reports(jobs, listed, study):
            console.print(f"report: attnspan-report {runs} --out reports/{name}", highlight=False, soft_wrap=True)
        if any(job.outcome == "failed" for job in jobs):
            raise SystemExit(1)
        return [
            JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=None)
            for overrides in job_overrides
        ]

    def _compose(self, job_overrides: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        """Compose and check every job, and tell of all the bad ones at once."""
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        from attnspan.errors import InputError
        from attnspan.settings import explain, plain_config

        configs, complaints = [], []
        for overrides in job_overrides:
            try:
                composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
                configs.append(plain_config(composed, composed.hydra.runtime.choices))
            except InputError as error:
                complaints.append(str(error))
            except (HydraException, OmegaConfBaseException) as error:
                complaints.append(explain(error))
        if complaints:
            raise InputError("; ".join(dict.fromkeys(complaints)))
        return configs

    def _plan(self, configs: list[dict[str, Any]], job_overrides: Sequence[Sequence[str]], console: Any) -> list[Any]:
        """Prepare the data of all jobs, and give every job its directory and command."""
        from attnspan.build import build_corpus
        from attnspan.data.prepare import prepare
        from attnspan.identity import claim, run_directory
        from attnspan.sweep import Job, command_of

        prepared: dict[str, Any] = {}
        jobs: dict[Path, Job] = {}
        varied = _varied(job_overrides)
        for config, overrides in zip(configs, job_overrides, strict=True):
            data = repr(config["data"])
            if data not in prepared:
                console.print(f"preparing data: {config['data_name']}", highlight=False)
                prepared[data] = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
            directory = run_directory(config, data_fingerprint=prepared[data].fingerprint)
            claim(directory, config, data_fingerprint=prepared[data].fingerprint)
            jobs[directory] = Job(
                arm=config["arm"],
                data=config["data_name"],
                seed=config["seed"],
                directory=directory,
                command=command_of(overrides, self._own_directory()),
                label=_label(config, [word for word in overrides if word in varied]),
            )
        return list(jobs.values())

    def _own_directory(self) -> str | None:
        """The directory that ``--config-dir`` named."""
        for source in self.config.hydra.runtime.config_sources:
            if source.provider == "command-line":
                return str(source.path)
        return None


def _reports(jobs: Sequence[Any], listed: Path, study: str) -> list[tuple[str, str]]:
    """(runs, name) of each report: it is about one data set, and a sweep may have run on several."""
    data = dict.fromkeys(job.data for job in jobs)
    if len(data) == 1:
        return [(f"@{listed}", study)]
    return [(str(listed.parent / name), f"{study}/{name}") for name in data]


def _side_by_side(config: dict[str, Any]) -> int:
    """As many runs as there are cores for their processes' threads; one where they would share a GPU."""
    if config["trainer"]["accelerator"] != "cpu" and shutil.which("nvidia-smi"):
        return 1
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available // (int(config["threads"]) * int(config["trainer"]["devices"])))


def _varied(job_overrides: Sequence[Sequence[str]]) -> set[str]:
    """The overrides that not every job has."""
    first, *others = [set(overrides) for overrides in job_overrides]
    return set().union(first, *others) - first.intersection(*others)


def _label(config: dict[str, Any], overrides: Sequence[str]) -> str:
    """The arm, the seed, and whatever else varies."""
    others = [word for word in overrides if word.partition("=")[0] not in ("decoder", "seed")]
    return " ".join([config["arm"], f"seed {config['seed']}", *others])
