"""Atomic writing of files, and the errors where it fails."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from attnspan.errors import InputError


def write_atomically(
    path: Path, content: bytes | memoryview, *, keep_old_as: Path | None = None, durable: bool = True
) -> None:
    """Write a file atomically: to a temporary file in the same directory, which is then renamed.

    Args:
        path: of the file; its directory is created if it is missing.
        content: the new content.
        keep_old_as: where to move an existing file.
        durable: flush it to the disk before the rename, so that a power cut leaves either the old file or the new one.

    Raises:
        InputError: the file cannot be written (read-only, disk full); the existing file is unchanged.
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
    """Flush the entries of ``directory`` to the disk, if the system supports it."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cannot_write(path: Path, error: OSError, *, need: int | None = None, at_least: bool = False) -> InputError:
    """The error for a file that cannot be written; for a full disk, it names the free and the needed bytes.

    Args:
        path: of the file.
        error: raised by the system.
        need: size of the file, if known.
        at_least: whether ``need`` is only a lower bound.
    """
    number = error.errno
    if number is None and (match := re.search(r"\[errno (\d+)\]", str(error))):  # raised by Arrow
        number = int(match[1])
    reason = os.strerror(number) if number is not None else str(error)
    if number in (errno.ENOSPC, errno.EDQUOT):
        needed = "" if need is None else f", it needs {'more than ' if at_least else ''}{size(need)}"
        reason += f"; {size(free_bytes(path))} are free{needed}"
    return InputError(f"{path}: cannot be written ({reason})")


def free_bytes(path: Path) -> int:
    """Free bytes on the disk of ``path``, which need not exist."""
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def size(count: int) -> str:
    """Format a number of bytes."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count} bytes"


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write ``text`` as UTF-8, atomically (:func:`write_atomically`)."""
    write_atomically(path, text.encode(), durable=durable)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: the file is missing or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: is not a JSON object")
    return content
