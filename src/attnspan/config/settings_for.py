"""Settings that a study chose for one arm or one task, as ``settings_for: {decoder=plain: {optimizer.lr: 0.002}}``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from attnspan.errors import InputError, nearest

KEY = "settings_for"
_EXAMPLE = "{decoder=plain: {optimizer.lr: 0.002}}"


def apply_settings_for(
    settings: DictConfig,
    *,
    choices: Mapping[str, Any],
    options: Callable[[str], Sequence[str]],
    overrides: Sequence[str],
) -> None:
    """Give a run the settings for its arm, its data and so on, and drop those for others.

    A condition is one or more choices, as in ``data=copy decoder=plain``; all must be the run's. On a command line its
    signs need a backslash, as in ``settings_for={decoder\\=plain:{optimizer.lr:0.002}}``. A later condition that
    applies is stronger, and what the command line or the sweep sets for a run is stronger than all.

    Args:
        settings: of one run, composed and not resolved; changed in place.
        choices: the file that was chosen in each group.
        options: gives the files that a group has; none if there is no such group.
        overrides: of the run, as in ``optimizer.lr=0.01``.

    Raises:
        InputError: a group, a choice or a key does not exist, or it is no mapping.
    """
    conditions: Any = settings.pop(KEY)
    if conditions is None:
        return
    conditions = OmegaConf.to_container(conditions) if isinstance(conditions, DictConfig) else conditions
    if not isinstance(conditions, dict) or not all(isinstance(keys, dict) for keys in conditions.values()):
        raise InputError(f"{KEY}: must map choices to keys and values, as in {_EXAMPLE}")
    given = [override.lstrip("+~").partition("=")[0] for override in overrides]
    given = [key for key in given if key not in choices]  # data=copy sets no key of data
    for condition, keys in conditions.items():
        wanted = _parse(str(condition), choices, options)
        for key, value in keys.items():
            _refuse_unknown(settings, str(key), where=f"{KEY}.{condition}")
            overridden = any(key == other or str(key).startswith(f"{other}.") for other in given)
            if not overridden and all(choices[group] == choice for group, choice in wanted.items()):
                OmegaConf.update(settings, str(key), value)


def _parse(condition: str, choices: Mapping[str, Any], options: Callable[[str], Sequence[str]]) -> dict[str, str]:
    """Group -> choice, of ``data=copy decoder=plain``."""
    wanted = {}
    for word in condition.split():
        group, _, choice = word.partition("=")
        if not choice:
            raise InputError(f"{KEY}: '{condition}' is not a choice of a group, as in {_EXAMPLE}")
        if not (known := options(group)):
            groups = [name for name in map(str, choices) if "/" not in name]
            raise InputError(f"{KEY}.{condition}: there is no group {group}; {nearest(group, groups)}")
        if choice not in known:
            raise InputError(f"{KEY}.{condition}: there is no {group}={choice}; {nearest(choice, known)}")
        wanted[group] = choice
    return wanted


def _refuse_unknown(settings: DictConfig, key: str, *, where: str) -> None:
    """Check that the config has the dotted ``key``."""
    node: Any = settings
    for word in key.split("."):
        if not isinstance(node, DictConfig) or word not in node:
            known = [str(one) for one in node] if isinstance(node, DictConfig) else []
            raise InputError(f"{where}: there is no key {key}; {nearest(word, known)}")
        node = node._get_node(word)
