"""Does a fresh run of a study come out as its sweep expects?

    attnspan-train sweep=long_sequences && attnspan-report @runs/long_sequences.txt --out reports/long_sequences
    python benchmarks/check_results.py long_sequences reports/long_sequences

A sweep states what it expects in lines of its header, one cell of ``curve.csv`` or ``attention.csv`` each:

    # Check:     copy  plain  11–15  error_rate  0.149 ± 0.06

data set (``.`` where the report has no folder for each), arm, bin, metric, value and tolerance, with two spaces or more
between the first four. The tolerance is for other machines and library versions, on which the same seeds draw other
numbers. Exits with 1 if a cell is out of it.
"""

from __future__ import annotations

import csv
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_CHECK = re.compile(r"^# +Check: +(\S+) {2,}(.+?) {2,}(.+?) {2,}(\w+) +(\d+\.?\d*) ± (\d+\.?\d*)$", re.MULTILINE)


@dataclass(frozen=True)
class Check:
    """One expected cell."""

    data: str
    arm: str
    lengths: str
    metric: str
    expected: float
    tolerance: float

    def found(self, report: Path) -> float | None:
        """The value of the cell in ``report``, the directory of a report; None if it has no such cell."""
        for path in (report / self.data / "curve.csv", report / self.data / "attention.csv"):
            if not path.is_file():
                continue
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    if (row["arm"], row["lengths"]) == (self.arm, self.lengths) and row.get(self.metric):
                        return float(row[self.metric])
        return None

    def holds(self, report: Path) -> bool:
        """Whether the cell is there and within the tolerance."""
        value = self.found(report)
        return value is not None and abs(value - self.expected) <= self.tolerance


def checks_of(sweep: str) -> list[Check]:
    """What the header of ``sweeps/<sweep>.yaml`` expects."""
    text = (ROOT / "sweeps" / f"{sweep}.yaml").read_text(encoding="utf-8")
    return [
        Check(data, arm, lengths, metric, float(expected), float(tolerance))
        for data, arm, lengths, metric, expected, tolerance in _CHECK.findall(text)
    ]


def main(sweep: str, report: Path) -> int:
    """Print every check with what was found; the exit code."""
    checks = checks_of(sweep)
    if not checks:
        print(f"sweeps/{sweep}.yaml: its header has no line '# Check:'")
        return 2
    print("| data | arm | length | metric | expected | found | |\n|:--|:--|:--|:--|--:|--:|:--|")
    for check in checks:
        value = check.found(report)
        cells = (check.data, check.arm, check.lengths, check.metric, f"{check.expected:.3f} ± {check.tolerance:.3f}")
        shown = "not there" if value is None else f"{value:.3f}"
        print(f"| {' | '.join(cells)} | {shown} | {'' if check.holds(report) else 'differs'} |")
    differ = sum(not check.holds(report) for check in checks)
    print(f"\n{len(checks) - differ} of {len(checks)} as expected")
    return 1 if differ else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/check_results.py SWEEP REPORT_DIRECTORY")
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
