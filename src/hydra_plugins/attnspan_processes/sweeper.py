"""Hydra's own sweeper, made to list everything that is wrong, and to guard runs under any launcher."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.launcher import Launcher

from .compose import carry_out
from .launcher import OwnLauncher

if TYPE_CHECKING:
    from rich.console import Console

    from attnspan.sweeps.plan import Plan


class AllJobsSweeper(BasicSweeper):
    """Every combination of the values given, all of them checked before the first one starts.

    Hydra's sweeper stops at the first job that does not compose, and writes a ``multirun.yaml``, over which sweeps that
    start at the same instant would race.
    """

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep.

        Raises:
            InputError: a job cannot be run as it is; none was started.
            SystemExit: a job did not finish.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        (jobs,) = self.split_arguments(overrides, None)
        if isinstance(self.launcher, OwnLauncher):
            return self.launcher.launch(jobs, initial_job_idx=0)

        launcher: Launcher = self.launcher

        def run(plan: Plan, console: Console) -> None:
            from attnspan.sweeps.processes import is_under_way, stop_all

            waiting = [job for job in plan.jobs if not job.outcome]
            ours = [job for job in waiting if not is_under_way(job)]
            if waiting:
                _hold_back(launcher, plan.n_jobs)

                def interrupt(number: int, frame: object) -> None:
                    signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
                    stop_all([job.directory for job in ours])  # before joblib hears of it, which would kill them
                    raise KeyboardInterrupt

                before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
                try:
                    launcher.launch([job.overrides for job in waiting], initial_job_idx=0)
                finally:
                    for number, handler in before.items():
                        signal.signal(number, handler)

        carry_out(self.hydra_context, self.config, jobs, n_jobs=None, run=run)
        return None


def _hold_back(launcher: Launcher, n_jobs: int) -> None:
    """Let joblib start no more jobs at once than there are cores for: it counts jobs, and not their threads."""
    options = getattr(launcher, "joblib", None)
    if options is not None and not 0 < options["n_jobs"] <= n_jobs:
        options["n_jobs"] = n_jobs
