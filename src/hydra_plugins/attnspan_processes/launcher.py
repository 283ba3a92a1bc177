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

    from attnspan.plan import Plan


class OwnLauncher(Launcher):
    """Checks every job of the sweep before it starts the first.

    Args:
        at_a_time: jobs side by side; None for cores / threads, or 1 on a GPU.
    """

    def __init__(self, *, at_a_time: int | None) -> None:
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
            SystemExit: a job did not finish.
        """
        carry_out(self.hydra_context, self.config, job_overrides, at_a_time=self.at_a_time, run=self.run)
        return [
            JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=None)
            for overrides in job_overrides
        ]

    @abstractmethod
    def run(self, plan: Plan, console: Console) -> None:
        """Run the jobs, and fill in how each ended."""


class ProcessLauncher(OwnLauncher):
    """Runs each job in a process of its own; :mod:`attnspan.sweep` does.

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
        super().__init__(at_a_time=at_a_time)

    def run(self, plan: Plan, console: Console) -> None:
        """Run them on this machine."""
        from attnspan.sweep import run_jobs

        run_jobs(
            plan.jobs,
            at_a_time=plan.at_a_time,
            threads=plan.settings["threads"],
            rerun=plan.settings["rerun"],
            fail_fast=plan.settings["fail_fast"],
            console=console,
        )
