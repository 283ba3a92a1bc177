"""The config of an evaluation: the frozen config of its run, with what an evaluation may change.

``data`` stays what the run was trained on. ``evaluation`` has what is asked::

    evaluation:
      name: beam_size-5
      weights: sha256 of the run's best checkpoint
      data: {...}        the corpus that is decoded
      data_name: reverse
      split: test
      length: null
      later_defaults: {...}  dotted keys that the run's config lacks, as they were added later, with today's defaults
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from attnspan.config.compose import resolve
from attnspan.config.config_files import conf_directory
from attnspan.config.identity import RESULTS_VERSION, flatten, with_stable_names
from attnspan.config.schema import Settings, check_settings
from attnspan.config.settings_for import KEY as SETTINGS_FOR
from attnspan.data.corpora.base import SPLITS, TEST
from attnspan.errors import InputError, nearest
from attnspan.runs.completeness import weights_of
from attnspan.runs.layout import LATER_DEFAULTS, OWN_CODE, WEIGHTS, read_config
from attnspan.runs.own_code import own_code
from attnspan.runs.stable_name import stable_name

EVALUATION = "evaluation"
"""The key of the config with what is asked."""

LENGTH_PENALTY = "decoding/length_penalty"
GROUPS = ("data", "decoding", LENGTH_PENALTY, "logger")
"""The groups of which another file may be chosen."""

MAY_CHANGE = (
    *GROUPS,
    "oracle_length",
    "data_name",
    "loader.evaluation_batch_tokens",
    "cache_dir",
    "checkpoint_interval",
    "threads",
    "loader.workers",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.strategy",
)
"""The keys of a run that an evaluation may change: what is decoded, how, and on which machine."""

_ASKED = ("decoding", "oracle_length", "loader.evaluation_batch_tokens")
"""Those that can change a number, besides the data."""

_OF_THE_TOKENIZERS = ("source_tokens", "target_tokens", "vocabulary_size", "minimum_count", "joint_vocabulary")
"""Keys of ``data`` that made the run's tokenizers."""
_OF_THE_TEXT = ("lowercase", "normalization")
"""Keys of ``data`` that the run's texts have, unless others are given."""


def evaluation_config(
    run: Path, overrides: Sequence[Override], *, split: str, length: str | None, config_directory: str | None = None
) -> dict[str, Any]:
    """Compose the config of one evaluation; ``evaluation.name`` is left to the caller.

    Args:
        run: directory of the finished run.
        overrides: of keys in :data:`MAY_CHANGE`, none of which is a sweep.
        split: train, validation or test.
        length: a range of lengths, for :class:`attnspan.data.pipeline.length_range.LengthRange`.
        config_directory: with further choices of the groups.

    Raises:
        InputError: a value is missing or not what it must be, or the key is part of the training.
        HydraException: there is no such key or file.
    """
    own = read_config(run)
    frozen = _with_later_keys(own)
    _refuse_trained(overrides, frozen)
    if split not in SPLITS:
        raise InputError(f"split={split}: there is no such split; {nearest(split, SPLITS)}")
    changed = {key: frozen[key] for key in frozen if any(one.partition(".")[0] == key for one in MAY_CHANGE)}
    for override in sorted(overrides, key=lambda one: str(one.key_or_group).count("/")):  # a part after its whole
        if (group := override.key_or_group) == LENGTH_PENALTY:
            beam = _chosen("decoding", "beam", config_directory, f"{group}={override.value()}")["decoding"]
            changed["decoding"]["length_penalty"] = copy.deepcopy(beam["length_penalty"])
        elif group in GROUPS:
            changed |= copy.deepcopy(_chosen(group, str(override.value()), config_directory))
    if any(override.key_or_group == "data" for override in overrides):
        kept = (*_OF_THE_TOKENIZERS, *_OF_THE_TEXT)
        changed["data"] |= {
            key: frozen["data"][key] for key in kept if key in frozen["data"] and key in changed["data"]
        }
    composed = OmegaConf.create(changed)
    OmegaConf.set_struct(composed, True)
    ConfigLoaderImpl._apply_overrides_to_config([one for one in overrides if one.key_or_group not in GROUPS], composed)
    for key in SPLITS:
        if key != split and OmegaConf.is_missing(composed.data, key):
            composed.data[key] = None  # it is not read
    found = resolve(composed, needs="this data")
    data, name = found.pop("data"), found.pop("data_name")
    if split != TEST and not any(override.key_or_group == "data_name" for override in overrides):
        name = f"{name}-{split}"  # a data set of its own in reports
    config = frozen | found
    of_today = {key: value for key, value in config.items() if key in Settings.model_fields}  # an old run has others
    check_settings(of_today | {"data_name": name})
    if code := own_code([data, found["decoding"]]):
        config[OWN_CODE] = {**config.get(OWN_CODE, {}), **code}
    asked = {"weights": weights_of(run), "data": data, "data_name": name, "split": split, "length": length}
    asked[LATER_DEFAULTS] = _added(frozen, own)
    return config | {EVALUATION: asked}


def evaluation_id(config: dict[str, Any], *, data_fingerprint: str) -> str:
    """Hash what was asked of which weights to 12 hexadecimal digits, with the examples' fingerprint for the data."""
    flat = flatten(with_stable_names({key: value for key, value in config.items() if key != EVALUATION}))
    later = config[EVALUATION].get(LATER_DEFAULTS, {})
    is_default = {key for key, value in later.items() if key.startswith("decoding.") and flat.get(key) == value}
    content = {
        "weights": config[EVALUATION][WEIGHTS],
        # A default of decoding that the run does not have yet is no request.
        "asked": {key: value for key, value in flat.items() if key.startswith(_ASKED) and key not in is_default},
        "data": data_fingerprint,
        "own_code": own_code([config[EVALUATION]["data"], config["decoding"]]),
        "results_version": RESULTS_VERSION,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def default_name(overrides: Sequence[str]) -> str:
    """A name for a directory, made of what is asked: ``beam-beam_size-5`` of ``decoding=beam decoding.beam_size=5``."""
    words = []
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key in _NOT_IN_NAMES or key.startswith(("hydra", "logger")):
            continue
        last = key.rpartition(".")[2]
        if key in (*GROUPS, "split", "length", "name", "data_name"):
            words.append(value)
        elif last in SPLITS or "/" in value:
            words.append(Path(value).stem)
        else:
            words.append(f"{last}-{value}")
    name = re.sub(r"[^\w.]+", "-", "-".join(words)).strip("-.")
    return name[:_LONGEST_NAME].rstrip("-.") or TEST


_LONGEST_NAME = 48
_NOT_IN_NAMES = ("rerun", "fail_fast", "dry_run", *MAY_CHANGE[len(GROUPS) + 2 :])
"""Keys that do not say what is decoded."""


def _refuse_trained(overrides: Sequence[Override], frozen: dict[str, Any]) -> None:
    """Refuse overrides of what the run was trained with, and of what does not exist."""
    known = {*flatten({key: value for key, value in frozen.items() if key != "data"}), *MAY_CHANGE}
    for override in overrides:
        key = override.key_or_group
        if any(key == one or key.startswith(f"{one}.") for one in MAY_CHANGE):
            if key.removeprefix("data.") in _OF_THE_TOKENIZERS and key.startswith("data."):
                raise InputError(f"{key}: the run's tokenizers are trained, and an evaluation uses them; leave it out")
            continue
        if key.partition("/")[0] not in frozen and key not in known and key != "sweep":
            keys = [*MAY_CHANGE, "split", "length", "name"]
            raise InputError(f"{key}: there is no such key; {nearest(key, keys)}")
        raise InputError(
            f"{key}: the run is trained, and an evaluation cannot change that; it may change data, decoding, "
            "oracle_length, split, length, loader.evaluation_batch_tokens, logger and the keys about the machine"
        )


@functools.cache
def _chosen(group: str, choice: str, config_directory: str | None, *more: str) -> dict[str, Any]:
    """The node of the chosen file of a group, not resolved; of the data also its name."""
    added = [f"hydra.searchpath=[file://{Path(config_directory).absolute()}]"] if config_directory else []
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
        composed = compose("train", overrides=[f"{group}={choice}", *more, *added])
    content = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(content, dict)
    found = {group: content[group]}
    if group == "data":
        found["data_name"] = content["data_name"] or choice
    return found


def _with_later_keys(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a run, with today's defaults for keys that were added since it was made."""
    today = _todays_defaults() | {"decoding": _todays_decoding(stable_name(config["decoding"]["_target_"]))}
    later = {
        key: value for key, value in today.items() if key not in ("sweep", "data", SETTINGS_FOR) and key not in config
    }
    sections = [key for key in ("loader", "logger", "decoding") if isinstance(config.get(key), dict)]
    return config | copy.deepcopy(later | {key: {**today[key], **config[key]} for key in sections})


def _added(config: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Dotted key -> value, of those keys of ``config`` that ``before`` lacks."""
    had = flatten(before)
    return {key: value for key, value in flatten(config).items() if key not in had}


@functools.cache
def _todays_decoding(name: str) -> dict[str, Any]:
    """The defaults of the decoding whose class has this stable name; empty if no file of ``conf/decoding/`` has it."""
    for path in sorted((conf_directory() / "decoding").glob("*.yaml")):
        node: dict[str, Any] = _chosen("decoding", path.stem, None)["decoding"]
        if stable_name(node["_target_"]) == name:
            return node
    return {}


@functools.cache
def _todays_defaults() -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
        defaults = OmegaConf.to_container(compose("train"), resolve=True, throw_on_missing=False)
    assert isinstance(defaults, dict)
    return {str(key): value for key, value in defaults.items()}
