"""The types of tensors are checked while tests run: what kind of numbers, and which sizes are the same."""

from __future__ import annotations

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


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype for annotations of arrays only: classes check the values of the config, and say more about them."""
    hints = function.__annotations__
    function.__annotations__ = {
        name: hint for name, hint in hints.items() if re.search(r"Tensor|Int\d*\[.*ndarray|State", str(hint))
    }
    return beartype(function)


def install() -> None:
    """Check the modules that are imported from now on."""
    install_import_hook(CHECKED, "tests.tensor_types.check")
