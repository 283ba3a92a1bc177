"""Hydra launchers of our own, which check a sweep before they start it, and the one that runs it on this machine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from .compose import carry_out

if TYPE_CHECKING:
    from rich.console import Console

    from attnspan.sweeps.plan import Plan


class OwnLauncher(Launcher):
    """Checks every job of the sweep before it starts the first.

    Args:
        n_jobs: jobs side by side; None for cores / threads, or 1 on a GPU.
    """

    def __init__(self, *, n_jobs: int | None) -> None:
        self.n_jobs = n_jobs
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
            SystemExit: a job did not finish.
        """
        carry_out(self.hydra_context, self.config, job_overrides, n_jobs=self.n_jobs, run=self.run)
        return [
            JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=None)
            for overrides in job_overrides
        ]

    @abstractmethod
    def run(self, plan: Plan, console: Console) -> None:
        """Run the jobs, and fill in how each ended."""


class ProcessLauncher(OwnLauncher):
    """Runs each job in a process of its own; :mod:`attnspan.sweeps.processes` does.

    Args:
        n_jobs: jobs side by side; None for cores / threads, or 1 on a GPU.

    Raises:
        ValueError: ``n_jobs`` is not a positive whole number.
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        if n_jobs is not None and (not isinstance(n_jobs, int) or n_jobs < 1):
            raise ValueError(f"hydra.launcher.n_jobs: must be null or a whole number of at least 1, not {n_jobs!r}")
        super().__init__(n_jobs=n_jobs)

    def run(self, plan: Plan, console: Console) -> None:
        """Run them on this machine."""
        from attnspan.sweeps.processes import run_jobs

        run_jobs(
            plan.jobs,
            n_jobs=plan.n_jobs,
            threads=plan.settings["threads"],
            rerun=plan.settings["rerun"],
            fail_fast=plan.settings["fail_fast"],
            console=console,
        )
