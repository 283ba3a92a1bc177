"""The launchers ``processes`` and ``submitit_slurm``: they check and freeze every job before the first one starts."""

from __future__ import annotations

import shlex
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from .composition import compose_jobs, config_directory

if TYPE_CHECKING:  # Hydra imports every plugin whenever it starts: heavy imports wait until they are needed
    from rich.console import Console

    from attnspan.sweeps.plan import Plan


class SweepLauncher(Launcher):
    """Launches the jobs of a sweep, at most ``n_jobs`` at once; None for cores / threads, or 1 on a GPU."""

    def __init__(self, n_jobs: int | None = None) -> None:
        self.n_jobs = n_jobs
        self.config: DictConfig
        self.hydra_context: HydraContext

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra passes; raises InputError if ``n_jobs`` is not a positive whole number."""
        from attnspan.errors import InputError

        n_jobs = self.n_jobs
        if n_jobs is not None and (isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs < 1):
            raise InputError(f"hydra.launcher.n_jobs: must be null or a whole number of at least 1, not {n_jobs!r}")
        self.config = config
        self.hydra_context = hydra_context

    def plan(self, job_overrides: Sequence[Sequence[str]], console: Console) -> Plan:
        """Compose and check the jobs, see :func:`attnspan.sweeps.plan.make_plan`."""
        from attnspan.sweeps.plan import make_plan

        configs, directory = compose_jobs(self.hydra_context, self.config, job_overrides), config_directory(self.config)
        return make_plan(configs, job_overrides, config_directory=directory, n_jobs=self.n_jobs, console=console)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Check the jobs, queue them, run them, and print how they ended. With ``dry_run`` only list them.

        Raises:
            InputError: a job cannot be run as it is; none was started.
            SystemExit: a job did not finish.
        """
        from attnspan.cli.console import open_console
        from attnspan.sweeps.plan import print_plan

        console = open_console(wide=True)
        plan = self.plan(job_overrides, console)
        done = [JobReturn(status=JobStatus.COMPLETED, _return_value=None)] * len(job_overrides)
        if plan.settings["dry_run"]:
            print_plan(console, plan)
        else:
            self.carry_out(plan, console)
        return done

    def carry_out(self, plan: Plan, console: Console) -> None:
        """Queue the jobs, run them, and print how they ended and what to do next.

        Raises:
            SystemExit: a job did not finish.
        """
        from attnspan.runs.run_lists import add_to_list
        from attnspan.sweeps.outcomes import print_outcomes
        from attnspan.sweeps.queue import enqueue, queue_heartbeats, resolve_outcomes

        plan.name_the_unnamed()
        if others := add_to_list(plan.listed, [job.directory for job in plan.jobs]):
            console.print(
                f"{plan.listed}: lists {others} runs of earlier launches too; delete it to begin a new list",
                highlight=False,
                soft_wrap=True,
            )
        enqueue(plan.jobs, rerun=plan.settings["rerun"])
        try:
            with queue_heartbeats(plan.jobs):
                self.run(plan, console)
        finally:
            resolve_outcomes(plan.jobs)
            print_outcomes(console, plan.jobs)
        for runs, name in plan.reports:
            command = shlex.join(["attnspan-report", runs, "--out", f"reports/{name}"])
            console.print(f"report: {command}", highlight=False, markup=False, soft_wrap=True)
        if not plan.is_done:
            raise SystemExit(1)

    @abstractmethod
    def run(self, plan: Plan, console: Console) -> None:
        """Run the jobs, and fill in how each ended."""


class ProcessLauncher(SweepLauncher):
    """Runs each job in its own process on this machine, see :mod:`attnspan.sweeps.processes`."""

    def run(self, plan: Plan, console: Console) -> None:
        """Run the jobs on this machine."""
        from attnspan.sweeps.processes import run_jobs

        run_jobs(plan.jobs, plan.options, console)


class SlurmLauncher(SweepLauncher):
    """Submits the jobs of a sweep as one array and waits for them, see :mod:`attnspan.sweeps.slurm.array`.

    Args:
        submitit_folder: for batch scripts and SLURM's output, with ``%j`` for a job's id.
        max_num_timeout: how often a job that reached its time limit is requeued.
        array_parallelism: most jobs at once.
        cpus_per_task: of a job; None for the threads of its run's processes.
        sbatch: other parameters of submitit's executor, which refuses unknown ones.
    """

    def __init__(
        self,
        *,
        submitit_folder: str,
        max_num_timeout: int,
        array_parallelism: int,
        cpus_per_task: int | None,
        **sbatch: Any,
    ) -> None:
        super().__init__()  # the number of this machine's cores does not matter on the cluster
        self._array_parallelism = array_parallelism
        self._folder = submitit_folder
        self._max_num_timeout = max_num_timeout
        self._cpus = cpus_per_task
        self._sbatch: dict[str, Any] = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in sbatch.items()
        }

    def run(self, plan: Plan, console: Console) -> None:
        """Submit the jobs and wait for them; raises InputError if SLURM refuses them or parameters contradict."""
        from attnspan.errors import InputError
        from attnspan.sweeps.slurm.array import run_array

        threads, devices = plan.options.threads, plan.settings["trainer"]["devices"]
        cpus = self._cpus or threads * devices
        if cpus < threads * devices:
            raise InputError(
                f"hydra.launcher.cpus_per_task={cpus} is less than the threads of a run, threads={threads} in each of "
                f"trainer.devices={devices}: leave it null"
            )
        limit, warning = self._sbatch.get("timeout_min"), self._sbatch.get("signal_delay_s")
        if isinstance(limit, int) and isinstance(warning, int) and warning >= limit * 60:
            raise InputError(
                f"hydra.launcher.signal_delay_s={warning} is not less than hydra.launcher.timeout_min={limit}: each "
                "job would be asked to stop as soon as it starts"
            )
        run_array(
            plan.jobs,
            replace(plan.options, n_jobs=self._array_parallelism),
            console,
            folder=self._folder,
            max_num_timeout=self._max_num_timeout,
            parameters={
                **self._sbatch,
                "name": plan.study,
                "cpus_per_task": cpus,
                "srun_args": [f"--cpus-per-task={cpus}"],  # a job step does not inherit it from its job
                # Some clusters requeue only jobs that ask for it.
                "additional_parameters": {"requeue": True, **self._sbatch.get("additional_parameters", {})},
            },
        )


def refuse_foreign(launcher: Any, config: DictConfig) -> SweepLauncher:
    """Return ``launcher`` if it is one of ours; raises InputError if it is not."""
    from attnspan.errors import InputError

    if not isinstance(launcher, SweepLauncher):
        raise InputError(
            f"hydra/launcher={config.hydra.runtime.choices['hydra/launcher']}: cannot launch sweeps of attnspan; "
            "use hydra/launcher=processes or hydra/launcher=submitit_slurm"
        )
    return launcher
