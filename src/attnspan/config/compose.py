"""From what Hydra composes to the plain config of a run."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from attnspan.checksums import sha256
from attnspan.config.config_files import LABEL, check_label, conf_directory
from attnspan.config.schema import check_sections, check_settings
from attnspan.config.settings_for import apply_settings_for
from attnspan.errors import InputError
from attnspan.runs.layout import OWN_CODE
from attnspan.runs.own_code import own_code

# Of an environment variable, the default where it is not set or empty.
OmegaConf.register_new_resolver("set_env", lambda name, default: os.environ.get(name) or default, replace=True)
# Of a file that a config names, so that a run's id depends on its content and not on its place. Who reads the file says
# what is wrong with a path that is none.
OmegaConf.register_new_resolver(
    "sha256_of", lambda path: sha256(Path(path)) if isinstance(path, str) else "", replace=True
)

_WANDB_MODES = {"dryrun": "offline", "run": "online"}
"""W&B's old names of modes, which its variable WANDB_MODE may still have."""
_INTERPOLATION = re.compile(r"\$\{(\w[\w.]*)\}")
"""Of a key from the top."""


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
    choices, options = job.runtime.choices, GlobalHydra.instance().config_loader().get_group_options
    if several := [group for group in ("decoder", "data", "sweep") if group not in choices]:
        raise InputError(f"{several[0]}: takes one choice, not a list; with -m, {several[0]}=a,b is a sweep over both")
    _refuse_sweep_of_no_package(composed, choices)
    settings = OmegaConf.masked_copy(composed, [str(key) for key in composed if key not in ("hydra", "sweep")])
    unresolved = OmegaConf.to_container(settings, resolve=False)
    assert isinstance(unresolved, dict)
    check_sections({str(key): value for key, value in unresolved.items()})
    _refuse_lists_in_names(settings, unresolved)
    given: Any = OmegaConf.to_container(job.overrides.task, resolve=False)
    apply_settings_for(settings, choices=choices, options=options, overrides=given)
    resolved = resolve(settings, needs=f"data={choices.data}")
    config: dict[str, Any] = {"arm": choices.decoder}
    config |= resolved
    config["data_name"] = config.get("data_name") or choices.data
    config["study"] = config.get("study") or choices.sweep
    wandb = config["logger"].get("wandb")
    if isinstance(wandb, dict) and isinstance(mode := wandb.get("mode"), str):
        wandb["mode"] = _WANDB_MODES.get(mode, mode)
    check_settings(config)
    _space_validations_evenly(config["trainer"])
    for key in ("runs_dir", "cache_dir"):
        config[key] = str(Path(config[key]).expanduser())
    if own := own_code(config):
        config[OWN_CODE] = own
    return config


def resolve(composed: DictConfig, *, needs: str) -> dict[str, Any]:
    """The config in plain dicts, lists, strings and numbers, without the labels of arm and data.

    A label is for reports, which read it in the file; it belongs to no run.

    Args:
        composed: not resolved.
        needs: what needs a value that is missing, for the message.

    Raises:
        InputError: a value is missing, or refers to what is not there; a label is no text.
    """
    try:
        resolved = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        needs = f", and {needs} needs one" if str(error.full_key).startswith("data.") else "; give it one"
        raise InputError(f"{error.full_key} has no value{needs}") from error
    except OmegaConfBaseException as error:
        of_resolver: BaseException | None = error
        while of_resolver is not None and not isinstance(of_resolver, InputError):
            of_resolver = of_resolver.__cause__ or of_resolver.__context__
        if of_resolver is not None:
            raise InputError(f"{error.full_key}: {of_resolver}") from error
        raise InputError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(resolved, dict)
    for key in ("decoder", "data"):
        part = resolved.get(key)
        if isinstance(part, dict) and LABEL in part:
            check_label(part.pop(LABEL), f"{key}.{LABEL}")
    return {str(key): value for key, value in resolved.items()}


def _refuse_lists_in_names(settings: DictConfig, node: dict[Any, Any]) -> None:
    """A list or a mapping in the middle of a text, as of ``data.split`` in ``scan_${data.split}``."""
    for key, value in node.items():
        if isinstance(value, dict):
            _refuse_lists_in_names(settings, value)
        for part in _INTERPOLATION.findall(value) if isinstance(value, str) else ():
            if value != f"${{{part}}}" and OmegaConf.is_config(found := OmegaConf.select(settings, part)):
                raise InputError(f"{part}: must be a name, not {OmegaConf.to_container(found)}; {key} is {value}")


def _refuse_sweep_of_no_package(composed: DictConfig, choices: Any) -> None:
    """The keys of a file in ``sweep/`` that names no package stand under ``sweep``, where nobody reads them."""
    if composed.get("sweep"):
        raise InputError(f"sweep={choices.sweep}: the first line of the file must be '# @package _global_'")


def _space_validations_evenly(trainer: dict[str, Any]) -> None:
    """Let validations be at most ``val_check_interval`` updates apart, with one after the last update."""
    steps = trainer["max_steps"]
    trainer["val_check_interval"] = steps // math.ceil(steps / trainer["val_check_interval"])
