"""The table of published ratios next to ours is computed from the committed results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_table_is_what_the_results_give() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "published.py")]
    printed = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", env={"PYTHONUTF8": "1"}).stdout
    assert printed == (ROOT / "results" / "published.md").read_text(encoding="utf-8")


def test_a_ratio_by_hand() -> None:
    """plain over bahdanau on all lengths of training: 1 - error rate, for each seed."""
    from benchmarks.published import Ours

    lines = (ROOT / "results/long_sequences_full/reverse/seeds.csv").read_text(encoding="utf-8").splitlines()
    head = lines[0].split(",")
    quality = {
        (row["arm"], row["seed"]): 1 - float(row["error_rate"])
        for row in (dict(zip(head, line.split(","), strict=True)) for line in lines[1:])
        if row["lengths"] == "in range"
    }
    ratios = [quality["plain", seed] / quality["bahdanau", seed] for seed in "123"]
    study = "long_sequences_full/reverse"
    plain, attention = (Ours(study, arm, "in range", total=True) for arm in ("plain", "bahdanau"))
    assert plain.over(attention) == f"{sum(ratios) / 3:.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
