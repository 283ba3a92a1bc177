"""Settings that a study chose for each arm, as ``arm_settings: {plain: {optimizer.lr: 0.002}}``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from attnspan.errors import InputError, nearest

KEY = "arm_settings"


def apply_arm_settings(settings: DictConfig, *, arm: str, arms: Sequence[str], overrides: Sequence[str]) -> None:
    """Give ``arm`` its settings, and drop those of all arms.

    What the command line or the sweep sets for a run is stronger.

    Args:
        settings: of one run, composed and not resolved; changed in place.
        arm: of the run.
        arms: that there are.
        overrides: of the run, as in ``optimizer.lr=0.01``.

    Raises:
        InputError: an arm or a key does not exist, or it is no mapping.
    """
    of_arms: Any = settings.pop(KEY)
    if of_arms is None:
        return
    of_arms = OmegaConf.to_container(of_arms) if isinstance(of_arms, DictConfig) else of_arms
    if not isinstance(of_arms, dict) or not all(isinstance(keys, dict) for keys in of_arms.values()):
        raise InputError(f"{KEY}: must map each arm to its keys and values, as in {{plain: {{optimizer.lr: 0.002}}}}")
    given = [override.lstrip("+~").partition("=")[0] for override in overrides]
    for name, keys in ((str(name), keys) for name, keys in of_arms.items()):
        if name not in arms:
            raise InputError(f"{KEY}.{name}: there is no such arm; {nearest(name, arms)}")
        for key in keys:
            _refuse_unknown(settings, str(key), where=f"{KEY}.{name}")
    for key, value in of_arms.get(arm, {}).items():
        if not any(key == other or key.startswith(f"{other}.") for other in given):
            OmegaConf.update(settings, key, value)


def _refuse_unknown(settings: DictConfig, key: str, *, where: str) -> None:
    """Check that the config has the dotted ``key``."""
    node: Any = settings
    for word in key.split("."):
        if not isinstance(node, Mapping) or word not in node:
            known = [str(one) for one in node] if isinstance(node, Mapping) else []
            raise InputError(f"{where}: there is no key {key}; {nearest(word, known)}")
        node = node._get_node(word) if isinstance(node, DictConfig) else node[word]
