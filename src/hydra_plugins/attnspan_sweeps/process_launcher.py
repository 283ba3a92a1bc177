"""``hydra/launcher=processes``: each run of a sweep in its own process on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from .launcher import SweepLauncher

if TYPE_CHECKING:
    from rich.console import Console

    from attnspan.sweeps.plan import Plan


class ProcessLauncher(SweepLauncher):
    """Runs each job in its own process, see :mod:`attnspan.sweeps.processes`.

    Args:
        n_jobs: most jobs at once; None for cores / threads, or 1 on a GPU.
    """

    def __init__(self, n_jobs: int | None = None) -> None:
        super().__init__(n_jobs=n_jobs)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra passes.

        Raises:
            InputError: ``n_jobs`` is not a positive whole number.
        """
        from attnspan.errors import InputError

        n_jobs = self.n_jobs
        if n_jobs is not None and (isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs < 1):
            raise InputError(f"hydra.launcher.n_jobs: must be null or a whole number of at least 1, not {n_jobs!r}")
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def run(self, plan: Plan, console: Console) -> None:
        """Run the jobs on this machine."""
        from attnspan.sweeps.processes import run_jobs

        run_jobs(
            plan.jobs,
            n_jobs=plan.n_jobs,
            threads=plan.settings["threads"],
            rerun=plan.settings["rerun"],
            fail_fast=plan.settings["fail_fast"],
            console=console,
        )
