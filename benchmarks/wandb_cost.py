"""What does W&B cost a run? The same training with and without it, in turns.

    python benchmarks/wandb_cost.py [rounds] > benchmarks/wandb_cost.txt

The default run on real words, 400 updates with a validation after every 100 and its logging as it is by default, with
``logger=none`` and with ``logger=wandb`` offline. Compared are the seconds of training and validation as the run itself
counts them, round by round. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from attnspan.run import _processor

SETTINGS = ("trainer.max_steps=400", "trainer.val_check_interval=100", "decoder=plain", "data.test_size=400")


def seconds(logger: str) -> float:
    """Of training and validation."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(
            [sys.executable, "-m", "attnspan.train", *SETTINGS, f"logger={logger}", f"runs_dir={place}"],
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"WANDB_MODE": "offline"},
        )
        (path,) = Path(place).rglob("summary.json")
        summary = json.loads(path.read_text(encoding="utf-8"))
        return float(summary["train_seconds"] + summary["validation_seconds"])


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    seconds("none")  # prepares the data
    pairs = []
    for number in range(rounds):
        order = ("none", "wandb") if number % 2 == 0 else ("wandb", "none")
        pairs.append({logger: seconds(logger) for logger in order})
    print(f"{datetime.now(UTC):%Y-%m-%d}, {_processor()}, {platform.platform()}, python {platform.python_version()},")
    print(f"torch {version('torch')}, wandb {version('wandb')}, one thread; plain, 400 updates, 4 validations\n")
    print("round   none (s)   wandb offline (s)   ratio")
    for number, pair in enumerate(pairs, start=1):
        print(f"{number:5}   {pair['none']:8.2f}   {pair['wandb']:17.2f}   {pair['wandb'] / pair['none']:5.3f}")
    ratio = statistics.median(pair["wandb"] / pair["none"] for pair in pairs)
    print(f"\nmedian ratio: {ratio:.3f}")


if __name__ == "__main__":
    main()
