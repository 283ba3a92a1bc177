"""``hydra/sweeper=all_jobs``: every combination of the given values."""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from .launchers import refuse_foreign


class AllJobsSweeper(BasicSweeper):
    """Passes all jobs of the sweep to the launcher at once, which checks them before it starts the first one.

    Hydra's own sweeper stops at the first job that does not compose. It also writes ``multirun.yaml``, which races with
    other sweeps that start at the same moment.
    """

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep.

        Raises:
            InputError: the launcher is not ours, or a job cannot be run as it is; none was started.
            SystemExit: a job did not finish.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        (jobs,) = self.split_arguments(overrides, None)
        return refuse_foreign(self.launcher, self.config).launch(jobs, initial_job_idx=0)
