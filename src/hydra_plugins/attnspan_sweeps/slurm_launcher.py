"""``hydra/launcher=submitit_slurm``: each run of a sweep as a SLURM job, all of them in one array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from .launcher import SweepLauncher

if TYPE_CHECKING:
    from rich.console import Console

    from attnspan.sweeps.plan import Plan


class SlurmLauncher(SweepLauncher):
    """Submits the jobs of a sweep and waits for them, see :mod:`attnspan.sweeps.slurm.array`.

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
        super().__init__(n_jobs=None)  # the number of this machine's cores does not matter on the cluster
        self._array_parallelism = array_parallelism
        self._folder = submitit_folder
        self._max_num_timeout = max_num_timeout
        self._cpus = cpus_per_task
        self._sbatch: dict[str, Any] = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in sbatch.items()
        }

    def run(self, plan: Plan, console: Console) -> None:
        """Submit the jobs and wait for them.

        Raises:
            InputError: SLURM does not accept them, or parameters contradict each other.
        """
        from attnspan.errors import InputError
        from attnspan.sweeps.slurm.array import run_array

        threads, devices = plan.settings["threads"], plan.settings["trainer"]["devices"]
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
            folder=self._folder,
            max_num_timeout=self._max_num_timeout,
            threads=threads,
            n_jobs=self._array_parallelism,
            parameters={
                **self._sbatch,
                "name": plan.study,
                "cpus_per_task": cpus,
                "srun_args": [f"--cpus-per-task={cpus}"],  # a job step does not inherit it from its job
                # Some clusters requeue only jobs that ask for it.
                "additional_parameters": {"requeue": True, **self._sbatch.get("additional_parameters", {})},
            },
            fail_fast=plan.settings["fail_fast"],
            console=console,
        )
