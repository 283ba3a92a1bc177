"""``hydra/launcher=processes``: each run of a sweep in its own process on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
