"""What does W&B cost? The same run without W&B and mirrored offline, in turns.

    python benchmarks/wandb_cost.py [repetitions] [override ...] > benchmarks/wandb_cost.txt

The run has the study's size but fewer updates, and a directory of its own each time. The order changes from turn to
turn, so that other load on the machine affects both alike. Training time is what the run itself counts, without
validation and test. The whole command also has W&B's start, tables, maps and end, which take the same few seconds
whatever the length of the run. Do not use the machine for anything else meanwhile.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RUN = ("decoder=bahdanau", "seed=1", "threads=1", "trainer.max_steps=300", "trainer.val_check_interval=150")
MODES = ("disabled", "offline")
MOST = 0.03
"""The largest share of training time that logging may cost."""


def measure(mode: str, overrides: list[str]) -> tuple[float, float]:
    """Seconds of training, and of the whole command."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "attnspan.cli.train", *RUN, f"runs_dir={runs}", f"logger.wandb.mode={mode}"]
        began = time.monotonic()
        subprocess.run([*command, *overrides], check=True, stdout=subprocess.DEVNULL)
        whole = time.monotonic() - began
        (summary,) = Path(runs).rglob("summary.json")
        return float(json.loads(summary.read_text(encoding="utf-8"))["train_seconds"]), whole


def main() -> int:
    """Measure and print. Returns 1 if W&B costs more than it may."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    overrides = sys.argv[2:]
    measure("disabled", overrides)  # prepares the data
    times: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    for repetition in range(repetitions):
        for mode in MODES if repetition % 2 == 0 else MODES[::-1]:
            times[mode].append(measure(mode, overrides))
    print(" ".join(["attnspan-train", *RUN, *overrides, "logger.wandb.mode=disabled,offline"]))
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.platform()}, python {platform.python_version()}, "
        f"wandb {version('wandb')}"
    )
    ratios = []
    for part, name in enumerate(("training", "the whole command")):
        print(f"\nseconds of {name:18}median   each time")
        for mode in MODES:
            values = [each[part] for each in times[mode]]
            print(f"{mode:26}{statistics.median(values):9.2f}   {'  '.join(f'{value:.2f}' for value in values)}")
        pairs = zip(*(times[mode] for mode in MODES), strict=True)
        ratios.append([with_it[part] / without[part] for without, with_it in pairs])
        each = "  ".join(f"{ratio:.3f}" for ratio in ratios[part])
        print(f"offline over disabled     {statistics.median(ratios[part]):9.3f}   {each}")
    cost = statistics.median(ratios[0]) - 1
    print(
        f"\nlogging costs {cost:.1%} of training; {'less' if cost < MOST else 'more'} than the {MOST:.0%} that it may"
    )
    return 0 if cost < MOST else 1


if __name__ == "__main__":
    sys.exit(main())
