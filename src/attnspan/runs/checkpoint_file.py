"""Checkpoint files: written whole or not at all, read without running anything, every byte checked."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from attnspan.errors import InputError, is_out_of_memory

GIVES_TOKENS = "gives_tokens"
"""Key of ``best.ckpt``: the data gives target tokens to the decoder."""


class DamagedError(InputError):
    """What a checkpoint file holds is not what was written into it; trying again will not help."""


def checkpoint_bytes(content: dict[str, Any]) -> memoryview:
    """The file that holds ``content``."""
    buffer = io.BytesIO()  # torch does not tell a full disk from other trouble; writing bytes does
    torch.save(content, buffer)
    return buffer.getbuffer()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it can run code, and every byte is checked.

    Raises:
        DamagedError: it is not whole, or no checkpoint.
        InputError: it is not there, or cannot be read now: too many files are open, the disk does not answer.
        MemoryError: there is not enough of it, which says nothing about the file; torch raises a RuntimeError instead.
    """
    try:
        file = io.BytesIO(path.read_bytes())  # so that what follows can only be about what the file holds
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()  # torch reads over a flipped bit in a tensor
        if damaged is not None:
            raise ValueError(f"{damaged} is damaged")
        file.seek(0)
        content = torch.load(file, weights_only=True, map_location="cpu")
        if not isinstance(content, dict) or "state_dict" not in content:
            raise ValueError("it holds no weights")
    except Exception as error:  # zipfile and torch raise many kinds for a file that is no checkpoint
        if isinstance(error, OSError) or is_out_of_memory(error):
            raise
        raise DamagedError(
            f"{path}: not a whole checkpoint ({(str(error) or type(error).__name__).splitlines()[0]})"
        ) from error
    return content
