"""Write RESULTS.md, the index, and ``results/<study>/README.md``, a page for each study, from what the studies printed.

    python results/make_pages.py

``index.yaml`` has the studies in their order, each with its question and with where its finding is read: from
``differences.csv`` of its directories, from a line of a file, or a sentence whose numbers a file has.
``<study>/notes.md`` is the page as written by hand; its directives stand for parts of reports:

    {finding PATH}              what the report says first
    {runs PATH}                 when, where and by which commit the runs were made
    {table PATH "Heading" N}    the N-th table under a heading; 1 by default
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
GENERATED = "<!-- written by results/make_pages.py; edit {} instead -->\n"
_DIRECTIVE = re.compile(r'^\{(finding|runs|table) (\S+)(?: "([^"]+)")?(?: (\d+))?\}$', re.MULTILINE)


def pages() -> dict[Path, str]:
    """Path to content, of the index and of every study."""
    index = yaml.safe_load((RESULTS / "index.yaml").read_text(encoding="utf-8"))
    found = {ROOT / "RESULTS.md": index_page(index)}
    for study in index["studies"]:
        name = study["study"]
        notes = (RESULTS / name / "notes.md").read_text(encoding="utf-8")
        head = GENERATED.format("notes.md") + f"\n# {name}: {study['question']}\n\n"
        found[RESULTS / name / "README.md"] = head + _DIRECTIVE.sub(expanded, notes)
    return found


def index_page(index: dict[str, Any]) -> str:
    """The findings of all studies, one row each."""
    rows = []
    for study in index["studies"]:
        name = study["study"]
        found = "<br>".join(study_findings(study))
        rows.append(f"| [{name}](results/{name}/README.md) | {study['question']} | {found} |")
    table = "\n".join(["| study | question | finding |", "|:--|:--|:--|", *rows])
    return f"{GENERATED.format('results/index.yaml')}\n# Results\n\n{index['before']}\n{table}\n\n{index['after']}"


def study_findings(study: dict[str, Any]) -> Iterator[str]:
    """The findings of a study, each with its numbers as printed.

    Raises:
        ValueError: a number of a sentence is not in the file that it is from.
    """
    for directory in study.get("differences", ()):
        yield difference(RESULTS / directory, study.get("arm"))
    for name, start in study.get("lines", {}).items():
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        (line,) = (line for line in lines if line.startswith(start))
        yield line
    for name, sentence in study.get("sentences", {}).items():
        printed = (ROOT / name).read_text(encoding="utf-8")
        for number in re.findall(r"\d+\.\d+", sentence):
            if number not in printed:
                raise ValueError(f"{name} has no {number}, which index.yaml quotes")
        yield sentence


def difference(directory: Path, arm: str | None) -> str:
    """The largest advantage over the baseline in the longest bin that training saw, of any arm or of ``arm``."""
    with (directory / "differences.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["total"] == "False" and row["side"] == "in range"]
    rows = [row for row in rows if row["lengths"] == rows[-1]["lengths"] and arm in (None, row["arm"])]
    best = max(rows, key=lambda row: float(row["advantage"]))
    advantage, low, high = (float(best[name] or "nan") for name in ("advantage", "low", "high"))
    several = f", the best of {len(rows)} comparisons" if len(rows) > 1 else ""
    unsure = "; the interval includes 0" if low <= 0 <= high else ""
    cost = "; † still improving: at that cost" if "still improving" in first_lines(directory / "report.md")[0] else ""
    data = f"{directory.name}: " if directory.parent != RESULTS else ""
    return (
        f"{data}{best['arm']} makes {decimal(abs(advantage))} [{decimal(low)}, {decimal(high)}] "
        f"{'fewer' if advantage >= 0 else 'more'} errors a token than {best['baseline']} on {best['lengths']} tokens, "
        f"the longest in training ({best['seeds']} seeds{several}{unsure}{cost})"
    )


def decimal(value: float) -> str:
    """Three decimals, with a true minus sign."""
    return f"{value:.3f}".replace("-", "−")


def expanded(directive: re.Match[str]) -> str:
    """The part of a report that a directive names, between marks that tests read."""
    what, name, heading, number = directive.groups()
    path = ROOT / name
    if what == "finding":
        lines = first_lines(path)
    elif what == "runs":
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("The runs:")]
    else:
        lines = tables_under(path, heading)[int(number or 1) - 1]
    return "\n".join([f"<!-- from {name} -->", *lines, "<!-- end -->"])


def first_lines(report: Path) -> list[str]:
    """What a report says before its first heading of the second level, without its title."""
    _, *lines = report.read_text(encoding="utf-8").partition("\n## ")[0].strip().splitlines()
    return "\n".join(lines).strip().splitlines()


def tables_under(report: Path, heading: str) -> list[list[str]]:
    """The tables under a heading of a report."""
    text = report.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE)
    return [block.strip().splitlines() for block in blocks]


if __name__ == "__main__":
    for path, content in pages().items():
        path.write_text(content, encoding="utf-8")
        print(path.relative_to(ROOT))
