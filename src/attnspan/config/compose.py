"""From what Hydra composes to the plain config of a run, and from Hydra's complaints to one line."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from attnspan.config.schema import CRITERIA, MATMUL_PRECISIONS, MODES
from attnspan.errors import InputError, nearest

_AT_LEAST: dict[str, tuple[type, float]] = {
    "seed": (int, 0),
    "threads": (int, 1),
    "checkpoint_interval": (float, 0),
    "model.hidden_size": (int, 1),
    "model.embedding_size": (int, 1),
    "model.dropout": (float, 0),
    "loader.batch_tokens": (int, 1),
    "loader.evaluation_batch_tokens": (int, 1),
    "loader.workers": (int, 0),
    "optimizer.lr": (float, 0),
    "label_smoothing": (float, 0),
    "trainer.max_steps": (int, 1),
    "trainer.val_check_interval": (int, 1),
    "trainer.log_every_n_steps": (int, 1),
    "trainer.devices": (int, 1),
    "schedule.warmup_steps": (int, 0),
    "schedule.final_ratio": (float, 0),
}
"""Numbers that every run has: what kind, and the least they may be."""


_SIZES = {"layers", "heads", "features", "half_width", "max_length"}
"""What the parts of a model call numbers that must be whole and at least 1, beside all that end in ``_size``."""

_SWITCHES = {
    "rerun",
    "fail_fast",
    "dry_run",
    "fused",
    "input_feeding",
    "norm_first",
    "reverse",
    "tied_target_embeddings",
}
"""What can only be true or false, wherever it stands."""

_ANOTHER_MEASURE = ("fast_dev_run", "max_epochs", "min_epochs", "max_time", "overfit_batches")
"""Lightning's other ways to end or to shorten a run, which would make it say less than its summary claims."""


def conf_directory() -> Path:
    """Where the configs lie: inside the installed package, or at the top of the checkout."""
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
    return plain_config(composed, composed.hydra.runtime.choices)


def plain_config(composed: DictConfig, choices: Any) -> dict[str, Any]:
    """Resolve what Hydra composed, and name the arm, and the data if it has no name yet, by their files.

    Args:
        composed: a job's config; a ``hydra`` node is left out.
        choices: ``hydra.runtime.choices``, the file that was chosen in each group.

    Returns:
        Plain dicts, lists, strings and numbers, with ``arm`` and ``data_name``.

    Raises:
        InputError: a value is missing, or is not what it must be.
    """
    settings = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
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
    _check(config)
    _spread_validations(config["trainer"])
    config["runs_dir"] = str(Path(config["runs_dir"]).expanduser())
    config["cache_dir"] = str(Path(config["cache_dir"]).expanduser())
    return config


def _check(config: dict[str, Any]) -> None:
    """Refuse values that cannot be; names the key."""
    if config.get("seed") is None:
        raise InputError("seed is null, and an unseeded run cannot be repeated: give a number, as in seed=1")
    for key in ("runs_dir", "cache_dir"):
        if not isinstance(config.get(key), str) or not config[key]:
            raise InputError(f"{key}: must be a path, not {config.get(key)!r}")
    if not re.fullmatch(r"\w[\w.-]*", str(config["data_name"])):
        raise InputError(f"data_name: must be a name of letters, digits, _ . - (a folder), not {config['data_name']!r}")
    for key in (
        "data",
        "encoder",
        "decoder",
        "model",
        "decoding",
        "optimizer",
        "schedule",
        "loader",
        "trainer",
        "logger",
    ):
        if not isinstance(config.get(key), dict):
            raise InputError(f"{key}: must be one of its group's choices or a mapping, not {config.get(key)!r}")
    _check_kinds(config)
    for key, (kind, least) in _AT_LEAST.items():
        value: Any = config
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise InputError(f"{key}: is missing")
            value = value[part]
        fits = isinstance(value, int) or (kind is float and isinstance(value, float))
        if isinstance(value, bool) or not fits or not value >= least:
            what = "whole number" if kind is int else "number"
            raise InputError(f"{key}: must be a {what} of at least {least}, not {value!r}")
    for key, value in (("model.dropout", config["model"]["dropout"]), ("label_smoothing", config["label_smoothing"])):
        if value >= 1:
            raise InputError(f"{key}: must be less than 1, not {value!r}")
    if config["selection_metric"] not in CRITERIA:
        choice = str(config["selection_metric"])
        raise InputError(f"selection_metric: '{choice}' is no measure to choose by; {nearest(choice, CRITERIA)}")
    if (precision := config["matmul_precision"]) not in MATMUL_PRECISIONS:
        raise InputError(f"matmul_precision: there is no {precision!r}; {nearest(str(precision), MATMUL_PRECISIONS)}")
    patience = config["patience"]
    if patience is not None and (isinstance(patience, bool) or not isinstance(patience, int) or patience < 1):
        raise InputError(f"patience: must be null or a whole number of at least 1, not {patience!r}")
    if config["seed"] >= 2**32:
        raise InputError(f"seed: must be less than 2^32, not {config['seed']}")
    devices = config["trainer"]["devices"]
    if config["threads"] * devices > (os.cpu_count() or 1):
        each = f" in each of trainer.devices={devices} processes" if devices > 1 else ""
        raise InputError(f"threads={config['threads']}{each} is more than this machine's {os.cpu_count()} cores")
    for key in config["trainer"]:
        if key in _ANOTHER_MEASURE or key.startswith("limit_"):
            raise InputError(
                f"trainer.{key}: a run is trainer.max_steps updates long and sees whole splits; leave it out"
            )
    if (strategy := config["trainer"].get("strategy", "auto")) not in ("auto", "ddp"):
        raise InputError(f"trainer.strategy: must be auto or ddp, not {strategy!r}")
    if (nodes := config["trainer"].get("num_nodes", 1)) != 1:
        raise InputError(f"trainer.num_nodes={nodes}: a run stays on one machine; leave it out")
    _check_wandb(config["logger"].get("wandb"))


def _check_wandb(wandb: Any) -> None:
    """Refuse what W&B cannot take; its words may come from the user's environment."""
    if not isinstance(wandb, dict):
        raise InputError(f"logger.wandb: must be a mapping, not {wandb!r}; logger=none switches W&B off")
    if (mode := wandb.get("mode")) not in MODES:
        raise InputError(f"logger.wandb.mode: there is no mode {mode!r}; {nearest(str(mode), MODES)}")
    project = wandb.get("project")
    if not isinstance(project, str) or not project or set(project) & set("/\\#?%:"):
        raise InputError(f"logger.wandb.project: must be a name without any of / \\ # ? % :, not {project!r}")
    if (entity := wandb.get("entity")) is not None and (not isinstance(entity, str) or not entity):
        raise InputError(f"logger.wandb.entity: must be a name or null, not {entity!r}")
    examples = wandb.get("examples")
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 0:
        raise InputError(f"logger.wandb.examples: must be a whole number of at least 0, not {examples!r}")


def _check_kinds(node: Any, key: str = "") -> None:
    """Refuse a size, wherever it stands in the config, that is no positive whole number, and a switch that is none."""
    if not isinstance(node, dict):
        return
    for name, value in node.items():
        path = f"{key}.{name}" if key else str(name)
        is_size = name in _SIZES or str(name).endswith("_size")
        if is_size and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{path}: must be a whole number of at least 1, not {value!r}")
        if name in _SWITCHES and not isinstance(value, bool):
            raise InputError(f"{path}: must be true or false, not {value!r}")
        _check_kinds(value, path)


def _spread_validations(trainer: dict[str, Any]) -> None:
    """Space validations evenly, ``val_check_interval`` updates apart at most, so that one stands at the end."""
    steps = trainer["max_steps"]
    trainer["val_check_interval"] = steps // math.ceil(steps / trainer["val_check_interval"])


def explain(error: HydraException | OmegaConfBaseException) -> str:
    """Say in one line what Hydra or OmegaConf object to, with the nearest word that they know."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if group:
            return f"{group}={name}: there is no such {group.rpartition('/')[2]}; {nearest(name, error.options or ())}"
    cause = error.__cause__
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        parent, key = cause.parent_node, str(cause.key)
        known = [str(name) for name in parent if str(name) != "hydra"] if isinstance(parent, DictConfig) else []
        if known and key not in known:
            return f"{cause.full_key}: there is no such key; {nearest(key, known)}"
        return f"{cause.full_key}: {_first_line(cause)}"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
