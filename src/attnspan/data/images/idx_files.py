"""Idx files: the format of MNIST and of the data sets that take its place.

Two bytes of 0, one for the type of the values (8: uint8), one for the number of dimensions, then each dimension as four
bytes, the highest first, then the values, row by row. A file may be compressed: ``train-images-idx3-ubyte.gz``.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from attnspan.errors import InputError

_UINT8 = 8
_LARGEST = 2**32
"""Bytes of values; a header that says more is damaged."""


def find_idx_file(directory: Path, name: str) -> Path:
    """The file ``name`` of ``directory``, or ``name.gz``.

    Raises:
        InputError: there is neither.
    """
    for path in (directory / name, directory / f"{name}.gz"):
        if path.is_file():
            return path
    raise InputError(f"{directory}: there is neither {name} nor {name}.gz")


def read_idx(path: Path, *, dimensions: int) -> UInt8[np.ndarray, ...]:
    """The values of an idx file of uint8 with so many ``dimensions``.

    Raises:
        InputError: it cannot be read, is no such file, or is cut off or damaged; names it.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(4)
            if start != bytes([0, 0, _UINT8, dimensions]):
                kind = f"an idx file of uint8 with {dimensions} dimension{'s' * (dimensions > 1)}"
                found = f"begins with the bytes {start.hex(' ')}" if start else "is empty"
                raise InputError(f"{path}: not {kind}: it {found} instead of 00 00 08 {dimensions:02x}")
            header = file.read(4 * dimensions)
            if len(header) < 4 * dimensions:
                raise InputError(f"{path}: is cut off in its header")
            shape = struct.unpack(f">{dimensions}I", header)
            expected = int(np.prod(shape, dtype=object))
            if not 0 < expected < _LARGEST:
                raise InputError(f"{path}: its header says {' x '.join(map(str, shape))} values, which cannot be")
            content = file.read(expected + 1)  # a compressed file could unpack to any size
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: not a complete gzip file ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(content) != expected:
        there = f"only {len(content)}" if len(content) < expected else "more"
        raise InputError(f"{path}: its header says {' x '.join(map(str, shape))} values, and there are {there}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
