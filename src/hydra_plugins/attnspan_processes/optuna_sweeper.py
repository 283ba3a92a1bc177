"""``hydra/sweeper=optuna``: a search for the settings with the least validation loss."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from .compose import compose, own_directory
from .launcher import ProcessLauncher
from .search_space import read_space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from attnspan.sweeps.hyperparameters.journal import Trial
    from attnspan.sweeps.hyperparameters.space import Space
    from attnspan.sweeps.plan import Plan
    from attnspan.sweeps.processes import Job


class OptunaSweeper(Sweeper):
    """Trials of runs, each with settings that optuna chooses by the validation loss of those before.

    Args:
        n_trials: how many in all; the same command goes on where it was stopped, up to so many.
        seed: of the choices.
        sampler: of optuna, without its seed.
        params: key to what it may be, in Hydra's syntax.
    """

    def __init__(self, *, n_trials: int, seed: int, sampler: DictConfig, params: DictConfig | None) -> None:
        self.n_trials = n_trials
        self.seed = seed
        self.sampler = OmegaConf.to_container(sampler, resolve=True)
        self.params: dict[str, Any] = {str(key): value for key, value in (params or {}).items()}
        self.config: DictConfig
        self.hydra_context: HydraContext
        self.launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra hands over."""
        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search.

        Raises:
            InputError: there is nothing to search, or an end of the space makes no run; none was started.
            SystemExit: a trial has no loss.
        """
        from attnspan.cli.console import open_console
        from attnspan.errors import InputError
        from attnspan.sweeps.hyperparameters.space import corners
        from attnspan.sweeps.hyperparameters.table import print_search, print_trials
        from attnspan.sweeps.hyperparameters.trials import Search
        from attnspan.sweeps.plan import make_plan

        self._check()
        from attnspan.sweeps.hyperparameters.journal import Journal, read_trials  # needs optuna

        assert isinstance(self.launcher, ProcessLauncher)
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        written = [f"{key}={value}" for key, value in self.params.items()]
        space, fixed = read_space(parser.parse_overrides([*written, *arguments]))
        if not space:
            raise InputError(
                "hydra/sweeper=optuna: nothing varies: give a key a space, as in optimizer.lr='interval(0.001,0.01)'"
            )
        console = open_console(wide=True)
        jobs = [_with(fixed, settings) for settings in corners(space)]
        plan = make_plan(
            compose(self.hydra_context, self.config, jobs),
            jobs,
            config_directory=own_directory(self.config),
            n_jobs=self.launcher.n_jobs,
            console=console,
        )
        search = Search(n_trials=self.n_trials, make_job=partial(self._job, fixed), listed=plan.listed)
        path = plan.listed.with_name(f"{plan.study}-{self._id(plan, space)}.journal")
        if plan.settings["dry_run"]:
            search.take_up(read_trials(path))
            print_search(console, search, plan)
            return
        rerun = plan.settings["rerun"]
        with Journal(path, space=space, sampler=self._make_sampler, seed=self.seed, anew=rerun) as journal:
            try:
                search.run(
                    journal,
                    n_jobs=plan.n_jobs,
                    threads=plan.settings["threads"],
                    rerun=rerun,
                    fail_fast=plan.settings["fail_fast"],
                    console=console,
                )
            finally:
                print_trials(console, search)
        if not search.is_done:
            raise SystemExit(1)

    def _check(self) -> None:
        from attnspan.errors import InputError

        if find_spec("optuna") is None:
            raise InputError("hydra/sweeper=optuna: optuna is not installed: pip install 'attnspan[optuna]'")
        for name, value, least in (("n_trials", self.n_trials, 1), ("seed", self.seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"hydra.sweeper.{name}: must be a whole number of at least {least}, not {value!r}")
        if not isinstance(self.launcher, ProcessLauncher):
            raise InputError("hydra/sweeper=optuna starts its trials itself: it needs hydra/launcher=processes")
        self._make_sampler(seed=self.seed)

    def _make_sampler(self, *, seed: int) -> BaseSampler:
        from attnspan.config.instantiate import build

        key = "hydra.sweeper.sampler"
        assert isinstance(self.sampler, dict)
        return build({key: {**self.sampler, "seed": seed}}, key)

    def _job(self, fixed: Sequence[str], trial: Trial) -> Job:
        from attnspan.sweeps.plan import job_for

        overrides = _with(fixed, trial.settings)
        (config,) = compose(self.hydra_context, self.config, [overrides])
        return job_for(config, overrides, own_directory(self.config), varied=f"trial {trial.number}")

    def _id(self, plan: Plan, space: Space) -> str:
        """Hash what can change the trials, and nothing else: a run of the space stands for what all have in common."""
        content = [plan.jobs[0].directory.name, sorted(map(repr, space.items())), self.sampler, self.seed]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _with(fixed: Sequence[str], settings: Mapping[str, str]) -> list[str]:
    return [*fixed, *(f"{key}={value}" for key, value in settings.items())]
