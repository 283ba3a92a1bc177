"""Composes the jobs of a sweep, as the config files were when the sweep was launched."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.plugins.config_source import ConfigResult
from hydra.types import HydraContext
from omegaconf import DictConfig


def compose_jobs(
    context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]]
) -> list[dict[str, Any]]:
    """Compose and check every job. A file is read once, a config or a user's own code; later edits have no effect.

    Raises:
        InputError: one line with everything that is wrong.
    """
    from attnspan.config.compose import plain_config
    from attnspan.config.hydra_errors import COMPOSITION_ERRORS, explain
    from attnspan.errors import InputError
    from attnspan.runs.own_code import freeze_own_code

    freeze_own_code()
    loader: Any = context.config_loader
    if not isinstance(loader.repository, _FrozenConfigs):
        loader.repository = _FrozenConfigs(loader.repository)
    configs, complaints = [], []
    for overrides in job_overrides:
        try:
            composed = loader.load_sweep_config(config, list(overrides))
            configs.append(plain_config(composed, composed.hydra))
        except InputError as error:
            complaints.append(str(error))
        except COMPOSITION_ERRORS as error:
            complaints.append(explain(error))
    if complaints:
        raise InputError("; ".join(dict.fromkeys(complaints)))
    return configs


class _FrozenConfigs(CachingConfigRepository):
    """Answers each question about the config files once, and shares the answers with its copies, which Hydra makes."""

    def __init__(self, delegate: IConfigRepository, answers: dict[tuple[str, str], Any] | None = None) -> None:
        super().__init__(delegate)
        self._answers: dict[tuple[str, str], Any] = {} if answers is None else answers

    def __deepcopy__(self, memo: dict[int, Any]) -> _FrozenConfigs:
        return _FrozenConfigs(self.delegate, self._answers)

    def _once(self, ask: Callable[[str], Any], path: str) -> Any:
        key = (ask.__name__, path)
        if key not in self._answers:
            self._answers[key] = ask(path)
        return copy.deepcopy(self._answers[key])

    def load_config(self, config_path: str) -> ConfigResult | None:
        return self._once(self.delegate.load_config, config_path)

    def group_exists(self, config_path: str) -> bool:
        return self._once(self.delegate.group_exists, config_path)

    def config_exists(self, config_path: str) -> bool:
        return self._once(self.delegate.config_exists, config_path)


def config_directory(config: DictConfig) -> str | None:
    """The value of ``--config-dir``."""
    sources = config.hydra.runtime.config_sources
    return next((str(source.path) for source in sources if source.provider == "command-line"), None)
