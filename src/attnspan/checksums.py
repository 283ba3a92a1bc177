"""What files were when they were written, so that it can be told later whether they still are that.

A manifest maps the name of a file, relative to a directory, to ``{"bytes": <size>, "sha256": <hexadecimal>}``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Manifest = dict[str, dict[str, Any]]


def make_manifest(directory: Path, names: Iterable[str]) -> Manifest:
    """Describe the files ``names`` of ``directory``.

    Raises:
        OSError: one cannot be read.
    """
    return {name: {"bytes": (path := directory / name).stat().st_size, "sha256": _sha256(path)} for name in names}


def find_damage(directory: Path, manifest: Mapping[str, Mapping[str, Any]], *, hashes: bool = True) -> str | None:
    """Say in words which file of ``directory`` is not what ``manifest`` says, None if all are.

    Args:
        directory: of the files.
        manifest: as made when they were written.
        hashes: read the files through; without, only their sizes are looked at.
    """
    for name, was in manifest.items():
        path = directory / name
        try:
            size = path.stat().st_size
            if size != was["bytes"]:
                return f"{name} has {size} bytes, and had {was['bytes']} when it was written"
            if hashes and _sha256(path) != was["sha256"]:
                return f"{name} is not what was written (its sha256 is another)"
        except FileNotFoundError:
            return f"{name} is missing"
        except (KeyError, TypeError):
            return f"what {name} was is not known"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
