"""The sweepers ``all_jobs``, every combination of the given values, and ``optuna``, a hyper-parameter search."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from .composition import compose_jobs, config_directory
from .launchers import refuse_foreign
from .search_space import params_as_overrides, read_space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from rich.console import Console

    from attnspan.sweeps.hyperparameters.journal import Trial
    from attnspan.sweeps.hyperparameters.space import Space
    from attnspan.sweeps.job import Job
    from attnspan.sweeps.plan import Plan

    from .launchers import SweepLauncher


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
        overrides = [*params_as_overrides(self.params), *arguments]
        (jobs,) = self.split_arguments(_parse(self.hydra_context, overrides), None)
        return refuse_foreign(self.launcher, self.config).launch(jobs, initial_job_idx=0)


class OptunaSweeper(Sweeper):
    """Runs trials, whose hyper-parameters optuna chooses by the validation losses of earlier trials.

    Args:
        n_trials: all trials of the search; the same command resumes a search that was stopped.
        seed: of the search.
        sampler: optuna's, without its seed.
        params: key to its space, in Hydra's syntax.
    """

    def __init__(self, *, n_trials: int, seed: int, sampler: DictConfig, params: DictConfig | None) -> None:
        self.n_trials = n_trials
        self.seed = seed
        self.sampler = OmegaConf.to_container(sampler, resolve=True)
        self.params = params
        self.config: DictConfig
        self.hydra_context: HydraContext
        self.launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra passes."""
        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search.

        Raises:
            InputError: nothing varies, or an end of the space makes no run; no trial was started.
            SystemExit: a trial has no loss.
        """
        from attnspan.cli.console import open_console
        from attnspan.errors import InputError
        from attnspan.sweeps.hyperparameters.space import corners

        launcher = self._check()
        space, fixed = read_space(_parse(self.hydra_context, params_as_overrides(self.params) + arguments))
        if not space:
            raise InputError(
                "hydra/sweeper=optuna: nothing varies: give a key a space, as in optimizer.lr='interval(0.001,0.01)'"
            )
        console = open_console(wide=True)
        plan = launcher.plan([_with(fixed, settings) for settings in corners(space)], console)
        self._search(plan, space, fixed, console)

    def _search(self, plan: Plan, space: Space, fixed: Sequence[str], console: Console) -> None:
        from attnspan.sweeps.hyperparameters.journal import Journal, read_trials  # needs optuna
        from attnspan.sweeps.hyperparameters.search import Search
        from attnspan.sweeps.hyperparameters.table import print_search, print_trials

        search = Search(
            n_trials=self.n_trials, make_job=lambda trial: self._make_job(plan, fixed, trial), listed=plan.listed
        )
        path = plan.listed.with_name(f"{plan.study}-{self._id(plan, space)}.journal")
        if plan.settings["dry_run"]:
            search.add(read_trials(path))
            print_search(console, search, plan)
            return
        restart = plan.options.rerun
        with Journal(path, space=space, sampler=self._make_sampler, seed=self.seed, restart=restart) as journal:
            try:
                search.run(journal, plan.options, console)
            finally:
                print_trials(console, search)
        if not search.is_done:
            raise SystemExit(1)

    def _check(self) -> SweepLauncher:
        from attnspan.errors import InputError

        from .launchers import ProcessLauncher  # now: Hydra executes the module, and makes the class, twice

        if find_spec("optuna") is None:
            raise InputError("hydra/sweeper=optuna: optuna is not installed: pip install 'attnspan[optuna]'")
        for name, value, least in (("n_trials", self.n_trials, 1), ("seed", self.seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"hydra.sweeper.{name}: must be a whole number of at least {least}, not {value!r}")
        launcher = refuse_foreign(self.launcher, self.config)
        if not isinstance(launcher, ProcessLauncher):
            raise InputError("hydra/sweeper=optuna runs its trials on this machine: use hydra/launcher=processes")
        self._make_sampler(seed=self.seed)
        return launcher

    def _make_sampler(self, *, seed: int) -> BaseSampler:
        from attnspan.config.instantiate import build

        key = "hydra.sweeper.sampler"
        assert isinstance(self.sampler, dict)
        return build({key: {**self.sampler, "seed": seed}}, key)

    def _make_job(self, plan: Plan, fixed: Sequence[str], trial: Trial) -> Job:
        from attnspan.sweeps.plan import job_for

        overrides = _with(fixed, trial.settings)
        (config,) = compose_jobs(self.hydra_context, self.config, [overrides])
        directory = config_directory(self.config)
        return job_for(config, overrides, directory, plan=plan, varied=f"trial {trial.number}")

    def _id(self, plan: Plan, space: Space) -> str:
        """Hash what can change the trials: the space, the sampler, its seed, and one run for what all runs share."""
        from attnspan.runs.own_code import own_code

        values = {key: asdict(part) for key, part in space.items()}
        content: list[Any] = [plan.jobs[0].directory.name, values, self.sampler, self.seed]
        if own := own_code(self.sampler):
            content.append(own)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _parse(context: HydraContext, overrides: list[str]) -> list[Override]:
    return OverridesParser.create(config_loader=context.config_loader).parse_overrides(overrides)


def _with(fixed: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    return [*fixed, *(f"{key}={value}" for key, value in settings.items())]
