"""How many threads a run may keep busy, as every library under it wants to be told."""

from __future__ import annotations

from typing import Any

POOLS = (
    "OMP_NUM_THREADS",  # torch, and Arrow's pool for computing
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",  # numpy and scipy
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",  # tokenizers
)
"""Variables that a library reads when it is loaded, so they must be set before."""


def thread_environment(threads: int) -> dict[str, str]:
    """Environment variables that hold every pool to ``threads`` threads."""
    return {name: str(threads) for name in POOLS}


def cores_of(config: dict[str, Any]) -> int:
    """Cores that one run of ``config`` keeps busy: its processes' threads, and what makes their batches."""
    return int(config["trainer"]["devices"]) * (int(config["threads"]) + int(config["loader"]["workers"]))
