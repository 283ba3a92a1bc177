"""Files that are written whole or not at all, and what to say where they cannot be."""

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
