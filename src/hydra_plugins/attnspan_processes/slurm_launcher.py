"""``hydra/launcher=submitit_slurm``: each run of a sweep a job of SLURM's, all of them one array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from .launcher import OwnLauncher

if TYPE_CHECKING:
    from rich.console import Console

    from attnspan.sweeps.plan import Plan


class SlurmLauncher(OwnLauncher):
    """Checks every job of the sweep before it submits them; :mod:`attnspan.sweeps.slurm` watches them.

    Args:
        submitit_folder: for batch scripts and SLURM's words, with ``%j`` for a job's id.
        max_num_timeout: how often a job that came to its time limit is put back.
        array_parallelism: most jobs at once.
        cpus_per_task: of a job; None for the threads of its run's processes.
        sbatch: all else is for submitit's executor, which refuses what it does not know.
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
        super().__init__(n_jobs=None)  # this machine's cores say nothing about the cluster's
        self._parallel = array_parallelism
        self._folder = submitit_folder
        self._max_num_timeout = max_num_timeout
        self._cpus = cpus_per_task
        self._sbatch = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in sbatch.items()
        }

    def run(self, plan: Plan, console: Console) -> None:
        """Submit the jobs and wait for them.

        Raises:
            InputError: SLURM does not take them, or a number of the launcher's cannot be.
        """
        from attnspan.errors import InputError
        from attnspan.sweeps.slurm import run_array

        threads, devices = plan.settings["threads"], plan.settings["trainer"]["devices"]
        cpus = self._cpus or threads * devices
        if cpus < threads * devices:
            raise InputError(
                f"hydra.launcher.cpus_per_task={cpus} is less than the threads of a run, threads={threads} in each of "
                f"trainer.devices={devices}: leave it null"
            )
        limit, before = self._sbatch.get("timeout_min"), self._sbatch.get("signal_delay_s")
        if isinstance(limit, int) and isinstance(before, int) and before >= limit * 60:
            raise InputError(
                f"hydra.launcher.signal_delay_s={before} is not less than hydra.launcher.timeout_min={limit}: each job "
                "would be told to stop as soon as it starts"
            )
        run_array(
            plan.jobs,
            name=plan.study,
            folder=self._folder,
            sbatch=self._sbatch,
            max_num_timeout=self._max_num_timeout,
            n_jobs=self._parallel,
            cpus=cpus,
            threads=threads,
            fail_fast=plan.settings["fail_fast"],
            console=console,
        )
