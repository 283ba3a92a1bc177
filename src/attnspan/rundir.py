"""The run directory: its file names, and writing them so that a file is there whole or not at all.

``runs/<data>/<arm>/<run id>/`` holds

========================  ==========================================================================
``config.yaml``           the resolved config
``metrics.csv``           training and validation curves
``records.parquet``       one row per test example, see :mod:`attnspan.records`
``attention.parquet``     where attention went on a few of them, see :mod:`attnspan.attended`; not every arm has any
``summary.json``          counts, times, versions, and what the other files were; written last
``status.json``           state and progress, see :mod:`attnspan.status`
``run.log``               what the run printed, when a sweep started it
``tokenizers/``           ``source.json`` and ``target.json``
``checkpoints/``          ``best.ckpt``; ``last.ckpt``, ``previous.ckpt`` and ``tested-*.ckpt`` to go on from
``wandb/``                W&B's mirror of the run, which nobody here reads
========================  ==========================================================================
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from attnspan.errors import InputError
from attnspan.manifest import find_damage

CONFIG = "config.yaml"
METRICS = "metrics.csv"
RECORDS = "records.parquet"
ATTENTION = "attention.parquet"
SUMMARY = "summary.json"
STATUS = "status.json"
LOG = "run.log"
LOCK = ".lock"
TOKENIZERS = "tokenizers"
CHECKPOINTS = "checkpoints"
BEST = "checkpoints/best.ckpt"
LAST = "checkpoints/last.ckpt"
PREVIOUS = "checkpoints/previous.ckpt"
TESTED = "checkpoints/tested-*.ckpt"
"""Pattern of the names that :func:`decoded_file` makes."""
UNUSABLE = ".unusable"
"""Ends the name of a checkpoint from which a run could not go on."""

RESULTS = (CONFIG, METRICS, RECORDS)
"""What a study reads of a run, with the summary."""
NEEDED = (*RESULTS, BEST, *(f"{TOKENIZERS}/{side}.json" for side in ("source", "target")))
"""A run is finished if and only if its summary says so, and these are what the summary says that they were."""
FILES = "files"
"""The summary's key with the manifest of the files."""


def write_whole(
    path: Path, content: bytes | memoryview, *, keep_old_as: Path | None = None, durable: bool = True
) -> None:
    """Write ``content`` to a temporary neighbour of ``path``, then rename it: a reader never sees half a file.

    Args:
        path: of the file; its directory is made if it is not there.
        content: all of it.
        keep_old_as: where the file that was there before goes.
        durable: have it on the disk before anybody sees it, so that a power cut leaves the old file or the new one.

    Raises:
        InputError: the file cannot be written (read-only, full); names it, and what a full disk lacks. What was there
            before is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise cannot_write(path, error, need=len(content)) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.chmod(0o644)
        if keep_old_as is not None and path.exists():
            path.replace(keep_old_as)
        temporary.replace(path)
        if durable:
            _sync_directory(path.parent)
    except OSError as error:
        raise cannot_write(path, error, need=len(content)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    """Have the names in ``directory`` on the disk, where the system can do that."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cannot_write(path: Path, error: OSError, *, need: int | None = None, at_least: bool = False) -> InputError:
    """What to say of a file that cannot be written, with the bytes it needs where the disk is full.

    Args:
        path: of the file.
        error: that the system raised.
        need: its bytes, where they are known.
        at_least: they are only those known so far.
    """
    number = error.errno
    if number is None and (said := re.search(r"\[errno (\d+)\]", str(error))):  # by arrow
        number = int(said[1])
    why = os.strerror(number) if number is not None else str(error)
    if number in (errno.ENOSPC, errno.EDQUOT):
        needed = "" if need is None else f", it needs {'more than ' if at_least else ''}{size(need)}"
        why += f"; {size(free_bytes(path))} are free{needed}"
    return InputError(f"{path}: cannot be written ({why})")


def free_bytes(path: Path) -> int:
    """Bytes that are free where ``path`` is, or would be."""
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def size(count: int) -> str:
    """Write a number of bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count} bytes"


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write ``text`` as UTF-8, as :func:`write_whole` does."""
    write_whole(path, text.encode(), durable=durable)


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


def decoded_file(rank: int, ranks: int) -> str:
    """Name of the file with what process ``rank`` of ``ranks`` has decoded of the test so far."""
    return TESTED.replace("*", f"{rank}-of-{ranks}")


def is_finished(directory: Path, *, hashes: bool = True) -> bool:
    """Whether the run in ``directory`` is finished, and its files are what they were then.

    Args:
        directory: of the run.
        hashes: read the files through; without, only their sizes are looked at.

    Raises:
        InputError: a file cannot be read now: who took that for unfinished would compute the run again.
    """
    return (directory / SUMMARY).is_file() and why_unfinished(directory, hashes=hashes) is None


def why_unfinished(directory: Path, *, needed: Sequence[str] = NEEDED, hashes: bool = True) -> str | None:
    """Say in words why the run in ``directory`` does not count as finished; None if it does.

    Args:
        directory: of the run.
        needed: the files that count, beside the summary and, where the arm has any, the attention.
        hashes: read the files through; without, only their sizes are looked at.

    Raises:
        InputError: a file cannot be read now, which says nothing about what it holds.
    """
    if missing := [name for name in (*needed, SUMMARY) if not (directory / name).is_file()]:
        return f"{', '.join(missing)} missing"
    try:
        summary = read_json(directory / SUMMARY)
    except InputError as error:
        if isinstance(error.__cause__, OSError):
            raise
        return f"{SUMMARY} is damaged"
    if summary.get("finished") is not True:
        return f"its {SUMMARY} says so"
    manifest = summary.get(FILES)
    if not isinstance(manifest, dict) or (unknown := [name for name in needed if name not in manifest]):
        return f"its {SUMMARY} does not say what {unknown[0] if isinstance(manifest, dict) else 'each file'} was"
    kept = [*needed, *([ATTENTION] if ATTENTION in manifest else [])]
    try:
        return find_damage(directory, {name: manifest[name] for name in kept}, hashes=hashes)
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error


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
