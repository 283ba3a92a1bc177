"""The id of a run, and the directory that belongs to it.

The id is a hash of everything that can change a run's numbers and of nothing else: the resolved config without the keys
in ``CHANGES_NOTHING`` and without those of ``LATER_KEYS`` that have their default, the data's fingerprint in place of
the ``data`` node (so a corpus may lie anywhere), and ``RESULTS_VERSION``. A class is hashed by its stable name, so code
can move without a run being computed again. The id does not depend on the order of keys, the machine or the working
directory.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from attnspan.errors import InputError
from attnspan.runs.layout import CONFIG, read_config
from attnspan.runs.stable_name import rename_classes, stable_name

RESULTS_VERSION = 6
"""Raise it with every change after which the same config gives other numbers."""

CHANGES_NOTHING = (
    "cache_dir",  # paths
    "runs_dir",
    "data",  # its fingerprint stands for it
    "data_name",
    "encoder.weights",  # a path; encoder.weights_sha256 stands for it
    "study",  # bookkeeping
    "sweep",
    "rerun",
    "fail_fast",
    "dry_run",
    "logger",
    "checkpoint_interval",
    "threads",  # how the machine is used
    "loader.workers",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.strategy",
    "trainer.log_every_n_steps",
)
"""Config keys that are left out of the hash."""

_SINUSOIDAL = {"_target_": "attnspan.models.positions.SinusoidalPositions", "_partial_": True}
_SOFTMAX = {"_target_": "attnspan.models.attention.normalisers.Softmax", "_partial_": True}
LATER_KEYS: dict[str, Any] = {
    "encoder.positions": _SINUSOIDAL,
    "decoder.positions": _SINUSOIDAL,
    "encoder.normaliser": _SOFTMAX,
    "decoder.normaliser": _SOFTMAX,
    "decoder.as_large_as.normaliser": _SOFTMAX,
    "decoder.heads": 1,  # also of a Transformer, whose runs always said it
    "decoder.as_large_as.heads": 1,
    "coverage_loss": 0.0,
    "encoder.final_state": "mean",  # of encoder=image_rows
}
"""Config keys that came later, with what a run did before it had them. With that value they are left out of the hash,
so a finished run keeps its id. Who reads such a key has the same default, for configs without it."""


def run_id(config: dict[str, Any], *, data_fingerprint: str) -> str:
    """Hash a resolved config to 12 hexadecimal digits."""
    relevant = {
        key: value
        for key, value in flatten(comparable(config)).items()
        if not any(key == free or key.startswith(f"{free}.") for free in CHANGES_NOTHING)
    }
    content = {"config": relevant, "data": data_fingerprint, "results_version": RESULTS_VERSION}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def with_stable_names(node: Any) -> Any:
    """The config with the stable name of a class in place of its path."""
    return rename_classes(node, stable_name)


def comparable(config: dict[str, Any]) -> dict[str, Any]:
    """The config as runs are told apart: with stable names, and without keys that came later and have their default."""
    named: dict[str, Any] = with_stable_names(config)
    return {key: node for key, value in named.items() if (node := _without_defaults(value, key)) is not _DEFAULT}


def _without_defaults(node: Any, key: str) -> Any:
    if key in LATER_KEYS and node == with_stable_names(LATER_KEYS[key]):
        return _DEFAULT
    if not isinstance(node, dict):
        return node
    children = ((name, _without_defaults(child, f"{key}.{name}")) for name, child in node.items())
    return {name: child for name, child in children if child is not _DEFAULT}


_DEFAULT = object()


def run_directory(config: dict[str, Any], *, data_fingerprint: str) -> Path:
    """``<runs_dir>/<data>/<arm>/<run id>``."""
    name = run_id(config, data_fingerprint=data_fingerprint)
    return Path(config["runs_dir"], config["data_name"], config["arm"], name)


def claim(directory: Path, config: dict[str, Any], *, data_fingerprint: str) -> None:
    """Make sure that ``directory`` is free for the run of ``config``.

    Raises:
        InputError: it holds another run.
    """
    try:
        config_there = read_config(directory)
    except InputError:  # none, or damaged: it does not count as a finished run, and the next attempt writes it anew
        return
    found = run_id(config_there, data_fingerprint=data_fingerprint)
    if found != directory.name:
        raise InputError(f"{directory}: already holds another run (its {CONFIG} has the id {found}); move it away")


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; an empty mapping is a value."""
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    return {
        dotted: value
        for key, child in node.items()
        for dotted, value in flatten(child, f"{prefix}.{key}" if prefix else str(key)).items()
    }
