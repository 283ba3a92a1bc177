"""Checksums of files, to detect damage later.

A manifest maps the name of a file, relative to a directory, to ``{"bytes": <size>, "sha256": <hexadecimal>}``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attnspan.errors import InputError

Manifest = dict[str, dict[str, Any]]


def make_manifest(directory: Path, names: Iterable[str]) -> Manifest:
    """Compute the manifest of the files ``names`` in ``directory``.

    Raises:
        InputError: a file cannot be read.
    """
    return {name: {"bytes": (path := directory / name).stat().st_size, "sha256": sha256(path)} for name in names}


def find_damage(directory: Path, manifest: Mapping[str, Mapping[str, Any]], *, hashes: bool = True) -> str | None:
    """Describe the first file of ``directory`` that does not match ``manifest``; None if all match.

    Args:
        directory: of the files.
        manifest: made when they were written.
        hashes: compare the hashes, which reads the files; otherwise only their sizes.

    Raises:
        InputError: a file cannot be read, which says nothing about its content.
    """
    for name, expected in manifest.items():
        path = directory / name
        try:
            size = path.stat().st_size
            if size != expected["bytes"]:
                return f"{name} has {size} bytes instead of {expected['bytes']}"
            if hashes and sha256(path) != expected["sha256"]:
                return f"{name} was changed after it was written (its sha256 differs)"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            raise _unreadable(path, error) from error
        except (KeyError, TypeError):
            return f"the checksum of {name} is missing"
    return None


def sha256(path: Path) -> str:
    """The sha256 of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be read ({error.strerror})")
