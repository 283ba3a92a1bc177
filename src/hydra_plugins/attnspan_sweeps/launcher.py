"""What our launchers share: every job is checked before the first one starts, and frozen as it is then."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from .composition import compose_jobs, config_directory

if TYPE_CHECKING:  # Hydra imports every plugin whenever it starts: heavy imports wait until they are needed
    from rich.console import Console

    from attnspan.sweeps.plan import Plan


class SweepLauncher(Launcher):
    """Launches the jobs of a sweep.

    Args:
        n_jobs: most jobs at once; None for cores / threads, or 1 on a GPU.
    """

    def __init__(self, *, n_jobs: int | None) -> None:
        self.n_jobs = n_jobs
        self.config: DictConfig
        self.hydra_context: HydraContext

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra passes.

        Raises:
            InputError: ``n_jobs`` is not a positive whole number.
        """
        from attnspan.errors import InputError

        n_jobs = self.n_jobs
        if n_jobs is not None and (isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs < 1):
            raise InputError(f"hydra.launcher.n_jobs: must be null or a whole number of at least 1, not {n_jobs!r}")
        self.config = config
        self.hydra_context = hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Check the jobs, queue them, run them, and print how they ended. With ``dry_run`` only list them.

        Raises:
            InputError: a job cannot be run as it is; none was started.
            SystemExit: a job did not finish.
        """
        from attnspan.cli.console import open_console
        from attnspan.sweeps.outcomes import print_outcomes
        from attnspan.sweeps.plan import make_plan, print_plan
        from attnspan.sweeps.queue import enqueue, queue_heartbeats, resolve_outcomes, write_list

        console = open_console(wide=True)
        plan = make_plan(
            compose_jobs(self.hydra_context, self.config, job_overrides),
            job_overrides,
            config_directory=config_directory(self.config),
            n_jobs=self.n_jobs,
            console=console,
        )
        done = JobReturn(status=JobStatus.COMPLETED, _return_value=None)
        if plan.settings["dry_run"]:
            print_plan(console, plan)
            return [done] * len(job_overrides)
        write_list(plan.listed, plan.jobs)
        enqueue(plan.jobs, rerun=plan.settings["rerun"])
        try:
            with queue_heartbeats(plan.jobs):
                self.run(plan, console)
        finally:
            resolve_outcomes(plan.jobs)
            print_outcomes(console, plan.jobs)
        for runs, name in plan.reports:
            console.print(f"report: attnspan-report {runs} --out reports/{name}", highlight=False, soft_wrap=True)
        if not plan.is_done:
            raise SystemExit(1)
        return [done] * len(job_overrides)

    @abstractmethod
    def run(self, plan: Plan, console: Console) -> None:
        """Run the jobs, and fill in how each ended."""


def refuse_foreign(launcher: Any, config: DictConfig) -> SweepLauncher:
    """Return ``launcher`` if it is one of ours.

    Raises:
        InputError: it is not.
    """
    from attnspan.errors import InputError

    if not isinstance(launcher, SweepLauncher):
        raise InputError(
            f"hydra/launcher={config.hydra.runtime.choices['hydra/launcher']}: cannot launch sweeps of attnspan; "
            "use hydra/launcher=processes or hydra/launcher=submitit_slurm"
        )
    return launcher
