"""Which kernels compute: those that numba compiles, from the extra ``fast``, or torch's operations."""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor


@functools.cache
def numba_is_available() -> bool:
    """Whether the compiled kernels can be loaded. The first call loads them, which takes a quarter of a second."""
    try:
        import attnspan.kernels.compiled  # noqa: F401
    except (ImportError, ValueError, RuntimeError) as error:  # the last two: a variable of numba's has a wrong value
        logging.getLogger(__name__).warning(
            "kernels: torch's operations, because numba cannot be imported (%s); training on a CPU is faster after "
            "pip install 'attnspan[fast]'",
            error,
        )
        return False
    return True


def uses_numba(tensor: Tensor) -> bool:
    """Whether the compiled kernels compute with tensors on this device and of this type."""
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64) and numba_is_available()


def backend_of(weight: Tensor) -> str:
    """What computes in a model with such weights, for the summary of a run: ``numba`` or ``torch``."""
    return "numba" if uses_numba(weight) else "torch"
