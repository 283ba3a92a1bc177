"""The layout of a run's directory: which files it has, where runs are found, how a config is read.

``runs/<data>/<arm>/<run id>/`` holds

========================  ==========================================================================
``config.yaml``           the resolved config
``metrics.csv``           training and validation curves
``records.parquet``       one row per test example, see :mod:`attnspan.runs.records`
``attention.parquet``     attention weights of a few of them, see :mod:`attnspan.runs.attention_maps`; not of every arm
``summary.json``          what the run came to, see :mod:`attnspan.runs.summary`; written last
``status.json``           state and progress, see :mod:`attnspan.runs.status`
``job.yaml``              the job of an unfinished run of a sweep, see :mod:`attnspan.sweeps.job`
``run.log``               what the run printed, when a sweep started it
``tokenizers/``           ``source.json`` and ``target.json``
``own_code/``             the user's own code that the config names, see :mod:`attnspan.runs.own_code`; not of every run
``checkpoints/``          ``best.ckpt``; ``last.ckpt``, ``previous.ckpt`` and ``tested-*.ckpt`` to resume from
``wandb/``                W&B's copy of the run; it is never read back
``evaluations/``          evaluations of the finished run, ``<name>-<hash>/``
========================  ==========================================================================

An evaluation has the same files, but for the curves, the tokenizers and the weights, which are those of its run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from attnspan.errors import InputError
from attnspan.runs.former_names import with_todays_names

CONFIG = "config.yaml"
METRICS = "metrics.csv"
RECORDS = "records.parquet"
ATTENTION = "attention.parquet"
SUMMARY = "summary.json"
STATUS = "status.json"
JOB = "job.yaml"
LOG = "run.log"
LOCK = ".lock"
TOKENIZERS = "tokenizers"
OWN_CODE = "own_code"
"""The directory of the copies, and the config's key with their hashes."""
CHECKPOINTS = "checkpoints"
BEST = "checkpoints/best.ckpt"
LAST = "checkpoints/last.ckpt"
PREVIOUS = "checkpoints/previous.ckpt"
TESTED = "checkpoints/tested-*.ckpt"
"""Pattern of the names that :func:`decoded_file` makes."""
UNUSABLE = ".unusable"
"""Suffix of a checkpoint from which a run could not resume."""

RESULTS = (CONFIG, METRICS, RECORDS)
"""What a study reads of a run, with the summary."""
LOADED = (CONFIG, BEST, *(f"{TOKENIZERS}/{side}.json" for side in ("source", "target")))
"""What decoding needs of a run."""
NEEDED = (*RESULTS, *LOADED[1:])
"""A run is finished if and only if its summary says so, and these files match its checksums."""
EVALUATIONS = "evaluations"
"""Directory of a run's evaluations."""
EVALUATION_RESULTS = (CONFIG, RECORDS)
"""The same for an evaluation."""
FILES = "files"
"""The summary's key with the manifest of the files."""
WEIGHTS = "weights"
"""The key of an evaluation's summary with the sha256 of the weights that it decoded with."""


def read_config(directory: Path) -> dict[str, Any]:
    """Read a run's resolved config; one that an earlier version wrote gets the names of today.

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
    return with_todays_names(content)


LATER_DEFAULTS = "later_defaults"
"""Below ``evaluation`` in the config of one: dotted keys that its run's config lacks, with their defaults."""


def as_of_the_run(config: dict[str, Any]) -> dict[str, Any]:
    """The config of an evaluation without defaults that its run does not have yet, so that the two can be compared."""
    later = (config.get("evaluation") or {}).get(LATER_DEFAULTS) or {}
    return _without(config, later, "") if later else config


def _without(node: dict[str, Any], later: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The mapping without the dotted keys that have the values of ``later``, and without mappings of these alone."""
    found = {}
    for key, child in node.items():
        dotted = f"{prefix}{key}"
        if dotted in later and later[dotted] == child:
            continue
        kept = _without(child, later, f"{dotted}.") if isinstance(child, dict) else child
        if kept != {} or child == {}:
            found[key] = kept
    return found


def is_evaluation(directory: Path) -> bool:
    """Whether ``directory`` is that of an evaluation, and not of a run."""
    return directory.absolute().parent.name == EVALUATIONS


def run_of(evaluation: Path) -> Path:
    """The directory of the run that an evaluation belongs to."""
    return evaluation.absolute().parents[1]


def trained_runs(paths: Iterable[Path]) -> list[Path]:
    """As :func:`find_runs`, for what needs weights; raises InputError for an evaluation, which has none."""
    directories = find_runs(paths)
    for directory in directories:
        refuse_evaluation(directory)
    return directories


def refuse_evaluation(directory: Path) -> None:
    """Raise :class:`InputError` for the directory of an evaluation; it names the one of the run."""
    if is_evaluation(directory):
        raise InputError(f"{directory}: is an evaluation, and has no weights; give its run, {run_of(directory)}")


def needed_files(directory: Path, *, weights: bool = True) -> tuple[str, ...]:
    """The files that a finished run or evaluation has; without ``weights``, only those that a study reads."""
    if is_evaluation(directory):
        return EVALUATION_RESULTS
    return NEEDED if weights else RESULTS


def decoded_file(rank: int, ranks: int) -> str:
    """Name of the file with what process ``rank`` of ``ranks`` has decoded of the test so far."""
    return TESTED.replace("*", f"{rank}-of-{ranks}")


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """The run directories among and below ``paths``, each once, sorted.

    Raises:
        InputError: a path is not there or cannot be read, or there is no run in or below it.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise InputError(f"{path}: no such directory")
        try:
            below = sorted(_run_directories(path))
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
        if not below:
            raise InputError(f"{path}: holds no run directory (none with a {CONFIG})")
        for directory in below:
            found.setdefault(directory.resolve(), directory)
    if not found:
        raise InputError("no run directory given")
    return sorted(found.values())


def _run_directories(path: Path) -> Iterator[Path]:
    if any((path / name).is_file() for name in (CONFIG, SUMMARY, STATUS)):
        yield path
    else:
        for child in path.iterdir():
            if child.is_dir() and not child.name.startswith("."):  # Hydra keeps configs of its own in .hydra
                yield from _run_directories(child)
