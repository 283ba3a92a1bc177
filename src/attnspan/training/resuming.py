"""From which checkpoint an unfinished run resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from attnspan.errors import InputError
from attnspan.files import write_whole
from attnspan.runs.checkpoint_file import DamagedError, read_checkpoint
from attnspan.runs.layout import BEST, LAST, PREVIOUS, UNUSABLE
from attnspan.training.callbacks.checkpoints import Checkpoints


def find_checkpoint(directory: Path, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """Find the newest whole checkpoint from which the run in ``directory`` can go on, None if there is none.

    Args:
        directory: of the run.
        say: is told of those that cannot be used; they are set aside, not removed.

    Raises:
        InputError: one cannot be read now, which says nothing about what it holds.
        MemoryError: likewise; torch raises a RuntimeError instead.
    """
    for name in (LAST, PREVIOUS):
        path = directory / name
        if not path.exists():
            continue
        try:
            content = read_checkpoint(path)
        except DamagedError as error:
            why = str(error)
        else:
            state = content.get("callbacks", {}).get(Checkpoints.__qualname__, {})
            if "best_file" in state:
                return path, content
            why = f"{path}: was written by another version of attnspan"
        aside = path.with_name(f"{path.name}{UNUSABLE}")
        path.replace(aside)
        say(f"{why}; it is set aside as {aside.name}")
    return None


def put_back_best(directory: Path, checkpoint: dict[str, Any], say: Callable[[str], None]) -> None:
    """Make ``best.ckpt`` what it was when ``checkpoint`` was written: it may be newer, damaged or gone.

    Args:
        directory: of the run.
        checkpoint: from which it goes on.
        say: is told if it was damaged.
    """
    path = directory / BEST
    content = checkpoint["callbacks"][Checkpoints.__qualname__]["best_file"].numpy().tobytes()
    if not content or (path.exists() and path.read_bytes() == content):
        return
    try:
        read_checkpoint(path)
    except InputError as error:
        say(f"{error}; it is put back")
    write_whole(path, content)
