"""Files that list run directories, one a line: ``attnspan-report @runs/mine.txt`` reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from attnspan.errors import InputError
from attnspan.files import write_text


def read_list(path: Path) -> list[str]:
    """The lines of a list, without empty ones and those that start with #; each where its run is today.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        lists = "" if path.exists() else f"; there are: {_lists_beside(path)}"
        raise InputError(f"@{path}: cannot be read ({reason}){lists}") from error
    return [_found(path, line) for line in map(str.strip, lines) if line and not line.startswith("#")]


def add_to_list(path: Path, directories: Iterable[Path]) -> int:
    """Write run directories to a list, after those that it has and that are still there.

    Returns:
        How many others the list has.

    Raises:
        InputError: it cannot be read or written.
    """
    new = {directory.absolute(): directory for directory in directories}
    before = [Path(line) for line in read_list(path)] if path.is_file() else []
    others = [directory for directory in before if directory.is_dir() and directory.absolute() not in new]
    write_text(path, "".join(f"{directory}\n" for directory in (*others, *new.values())))
    return len(others)


def _lists_beside(path: Path) -> str:
    return ", ".join(f"@{one}" for one in sorted(path.parent.glob("*.txt"))) or "no lists in its folder"


def _found(path: Path, line: str) -> str:
    """A run directory beside the list, where that was moved together with its runs; else the line as it stands."""
    return next((str(place) for place in _beside(path, Path(line)) if place.is_dir()), line)


def _beside(path: Path, listed: Path) -> Iterator[Path]:
    """Where ``<data>/<arm>/<run id>`` at the end of a line may lie: below the list's directory, or the one above it."""
    parts = listed.parts
    for base in (path.parent, path.parent.parent):
        yield from (Path(base, *parts[first:]) for first in range(1, len(parts) - 2))
