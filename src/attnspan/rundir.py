"""The run directory: its file names, and writing them so that a file is there whole or not at all.

``runs/<data>/<arm>/<run id>/`` holds

========================  ==========================================================================
``config.yaml``           the resolved config
``metrics.csv``           training and validation curves
``records.parquet``       one row per test example, see :mod:`attnspan.records`
``summary.json``          counts, times, versions; written last, so a run with one is finished
``status.json``           state and progress while the run is under way
``run.log``               what the run printed, when a sweep started it
``tokenizers/``           ``source.json`` and ``target.json``
``checkpoints/``          ``best.ckpt``, and ``last.ckpt`` and ``previous.ckpt`` to go on from
========================  ==========================================================================
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from attnspan.errors import InputError

CONFIG = "config.yaml"
METRICS = "metrics.csv"
RECORDS = "records.parquet"
SUMMARY = "summary.json"
STATUS = "status.json"
LOG = "run.log"
LOCK = ".lock"
TOKENIZERS = "tokenizers"
CHECKPOINTS = "checkpoints"
BEST = "checkpoints/best.ckpt"
LAST = "checkpoints/last.ckpt"
PREVIOUS = "checkpoints/previous.ckpt"

WHOLE = (CONFIG, METRICS, RECORDS, SUMMARY)
"""A run is finished if and only if these are there."""


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary neighbour of ``path``, then rename it: a reader never sees half a file.

    Raises:
        InputError: the directory cannot be written (read-only, full).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    write_whole(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: there is no such file, or it is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no JSON object")
    return content


def read_config(directory: Path) -> dict[str, Any]:
    """Read a run's resolved config.

    Raises:
        InputError: ``directory`` holds no readable ``config.yaml``.
    """
    path = directory / CONFIG
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{directory}: not a run directory (it holds no {CONFIG})") from error
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise InputError(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no config")
    return content


def is_finished(directory: Path) -> bool:
    """Whether every file of a finished run is there."""
    return all((directory / name).is_file() for name in WHOLE)
