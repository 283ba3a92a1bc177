"""From what Hydra composes to the plain config of a run, and from Hydra's errors to one line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from attnspan.config.schema import check_settings
from attnspan.config.settings_for import apply_settings_for
from attnspan.errors import InputError, nearest
from attnspan.runs.former_names import FORMER_KEYS
from attnspan.runs.layout import OWN_CODE
from attnspan.runs.own_code import own_code


def conf_directory() -> Path:
    """The directory of the configs: inside the installed package, or at the top of the checkout."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def compose_config(*overrides: str) -> dict[str, Any]:
    """The plain config of the run that the command line would start with these overrides.

    Raises:
        InputError: see :func:`plain_config`.
        HydraException: there is no such key or file.
    """
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
        composed = compose("train", overrides=list(overrides), return_hydra_config=True)
        return plain_config(composed, composed.hydra)


def plain_config(composed: DictConfig, job: Any) -> dict[str, Any]:
    """Resolve what Hydra composed, check it, and name the arm after its file; the data too, if it has no name.

    Args:
        composed: a job's config; its ``hydra`` node is left out.
        job: the job's ``hydra`` node, which says what file was chosen in each group, and what was overridden.

    Returns:
        Plain dicts, lists, strings and numbers, with ``arm`` and ``data_name``, and ``own_code`` where it names any.

    Raises:
        InputError: a value is missing, or is not what it must be.
    """
    settings = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    choices, options = job.runtime.choices, GlobalHydra.instance().config_loader().get_group_options
    apply_settings_for(settings, choices=choices, options=options, overrides=job.overrides.task)
    try:
        resolved = OmegaConf.to_container(settings, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise InputError(f"{error.full_key} has no value, and data={choices.data} needs one") from error
    except OmegaConfBaseException as error:
        raise InputError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(resolved, dict)
    config: dict[str, Any] = {"arm": choices.decoder}
    config |= {str(key): value for key, value in resolved.items() if key != "sweep"}
    config["data_name"] = config.get("data_name") or choices.data
    config["study"] = config.get("study") or choices.sweep
    check_settings(config)
    _space_validations_evenly(config["trainer"])
    for key in ("runs_dir", "cache_dir"):
        config[key] = str(Path(config[key]).expanduser())
    if own := own_code(config):
        config[OWN_CODE] = own
    return config


def _space_validations_evenly(trainer: dict[str, Any]) -> None:
    """Let validations be at most ``val_check_interval`` updates apart, with one after the last update."""
    steps = trainer["max_steps"]
    trainer["val_check_interval"] = steps // math.ceil(steps / trainer["val_check_interval"])


def explain(error: HydraException | OmegaConfBaseException) -> str:
    """One line for an error of Hydra's or OmegaConf's, with the nearest name that there is."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if group:
            return f"{group}={name}: there is no such {group.rpartition('/')[2]}; {nearest(name, error.options or ())}"
    cause = error.__cause__
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        parent, key = cause.parent_node, str(cause.key)
        known = [str(name) for name in parent if str(name) != "hydra"] if isinstance(parent, DictConfig) else []
        if known and key not in known:
            return f"{cause.full_key}: there is no such key; {_nearest_key(key, known)}"
        return f"{cause.full_key}: {_first_line(cause)}"
    return _first_line(error)


def _nearest_key(key: str, known: Sequence[str]) -> str:
    """As :func:`nearest`; what a key was called formerly leads to its name of today, however it is spelled."""
    today = FORMER_KEYS.get(key)
    return f"it is called '{today}' now" if today in known else nearest(key, known)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
