"""How examples and attention weights lie in the file: small, and inflated by the browser itself."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

LEVELS = 255
_OPS = {"equal": "=", "replace": "s", "insert": "i", "delete": "d"}


def quantised(weights: NDArray[np.floating]) -> NDArray[np.uint8]:
    """q = round(255 sqrt(w)) of weights w from 0 to 1, which are (q / 255)^2 to within 0.004.

    The root keeps small weights apart: of 100 equal weights none becomes 0, and a row still sums to 1. A weight that
    is not 0 has at least q = 1, so q = 0 says that it is exactly 0.
    """
    q = np.rint(LEVELS * np.sqrt(np.clip(weights, 0.0, 1.0)))
    return np.where(weights > 0, np.maximum(q, 1), 0).astype(np.uint8)


def packed(content: bytes) -> str:
    """``content`` in deflate and base64, as the browser's ``DecompressionStream("deflate")`` takes it."""
    return base64.b64encode(zlib.compress(content, 9)).decode("ascii")


def packed_json(content: Any) -> str:
    """A value without NaN, as :func:`packed` JSON."""
    return packed(json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode())


def edit_path(output: list[str], reference: list[str]) -> str:
    """How an output becomes its reference, a letter for each step from left to right, by the fewest edits.

    ``=`` equal, ``s`` another token, ``i`` a token too much in the output, ``d`` a token of the reference missing.
    """
    return "".join(
        _OPS[op.tag] * max(op.src_end - op.src_start, op.dest_end - op.dest_start)
        for op in Levenshtein.opcodes(reference, output)
    )
