"""What do two cores gain? The same sweep with one run at a time and with two, one thread each.

    python benchmarks/side_by_side.py [repetitions] > benchmarks/side_by_side.txt

The sweep has four runs of the same cost, so nothing waits for a straggler. The two ways take turns, and the order
changes from turn to turn, so that other load on the machine affects both alike. Timed is the whole command, from its
start to its table; the data is prepared before. Do not use the machine for anything else meanwhile.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime

SWEEP = (
    "decoder=bahdanau seed=1,2,3,4 threads=1 logger=none trainer.max_steps=150 trainer.val_check_interval=150 "
    "data.validation_size=112 data.test_size=96"
)


def seconds(n_jobs: int) -> float:
    """Wall time of the sweep in a directory of its own."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "attnspan.cli.train", "-m", *SWEEP.split(), f"runs_dir={runs}"]
        began = time.monotonic()
        subprocess.run([*command, f"hydra.launcher.n_jobs={n_jobs}"], check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - began


def main() -> None:
    """Measure and print."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    seconds(2)  # prepares the data
    times: dict[int, list[float]] = {1: [], 2: []}
    for repetition in range(repetitions):
        for n_jobs in (1, 2) if repetition % 2 == 0 else (2, 1):
            times[n_jobs].append(seconds(n_jobs))
    print(f"attnspan-train -m {SWEEP}")
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.platform()}, python {platform.python_version()}")
    print()
    print("runs at a time   seconds, median   each time")
    for n_jobs, all_of_them in times.items():
        each = "  ".join(f"{value:.1f}" for value in all_of_them)
        print(f"{n_jobs:14}   {statistics.median(all_of_them):15.1f}   {each}")
    ratios = [one / two for one, two in zip(times[1], times[2], strict=True)]
    print()
    each = "  ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"throughput, two at a time over one: {statistics.median(ratios):.2f} (each pair of turns: {each})")


if __name__ == "__main__":
    main()
