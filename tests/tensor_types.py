"""The types of tensors are checked while tests run: what kind of numbers, and which sizes are the same."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

from beartype import beartype
from jaxtyping import install_import_hook

CHECKED = (
    "attnspan.models",
    "attnspan.evaluation",
    "attnspan.data.pipeline.batches",
    *(f"attnspan.kernels.{name}" for name in ("additive", "backend", "bahdanau", "cells", "luong", "recurrence")),
)
"""Everything but ``attnspan.kernels.compiled``, whose functions numba reads."""

_RANDOM = random.Random(0)


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype for annotations of arrays only: classes check the values of the config, and say more about them."""
    hints = function.__annotations__
    function.__annotations__ = {
        name: hint for name, hint in hints.items() if re.search(r"Tensor|Int\d*\[.*ndarray|State", str(hint))
    }
    checked = beartype(function)
    defaults = getattr(checked, "__kwdefaults__", None) or {}
    if "__beartype_getrandbits" in defaults:  # it checks one item of a tuple, chosen by the generator that runs use
        defaults["__beartype_getrandbits"] = _RANDOM.getrandbits
    return checked


def install() -> None:
    """Check the modules that are imported from now on."""
    install_import_hook(CHECKED, "tests.tensor_types.check")
