"""Time, memory and matrix products, as the benchmarks measure them. Needs torch and nothing of attnspan."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch


def median_seconds(work: Callable[[], object], seconds: float) -> float:
    """Median time of ``work``: one call to warm up, then ``seconds`` or three calls, within ten times ``seconds``."""
    work()
    times: list[float] = []
    while (spent := sum(times)) < seconds or (len(times) < 3 and spent < 10 * seconds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def rate(work: Callable[[], int], seconds: float) -> float:
    """Tokens per second of ``work``, which returns their number: one call to warm up, then at least ``seconds``."""
    work()
    began, tokens = time.perf_counter(), 0
    while (now := time.perf_counter()) < began + seconds:
        tokens += work()
        now = time.perf_counter()
    return tokens / (now - began)


def peak_mb() -> float:
    """Peak memory of this process since :func:`forget_peak`. Linux; the peak of getrusage starts with the parent's."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def forget_peak() -> None:
    """Reset the peak, so that what imports needed for a moment does not count."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def product_gflops(seconds: float) -> float:
    """GFLOP/s of a large float32 matrix product, 2,048 in each direction."""
    a, b, size = torch.randn(2048, 2048), torch.randn(2048, 2048), 2048
    return 2 * size**3 / median_seconds(lambda: a @ b, seconds) / 1e9
