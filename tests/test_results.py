"""README.md and RESULTS.md say what the committed result files say, and these agree with each other."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = sorted(path.parent for path in (ROOT / "results").rglob("curve.csv"))
QUOTED = re.compile(r"<!-- from (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "RESULTS.md"])
def test_what_is_quoted_is_what_was_printed(page: str) -> None:
    """Every line of a quotation stands, word for word, in the report that it names."""
    quotations = QUOTED.findall((ROOT / page).read_text(encoding="utf-8"))
    assert quotations
    for name, text in quotations:
        printed = (ROOT / name).read_text(encoding="utf-8").splitlines()
        for line in text.splitlines():
            assert line in ("", "```", *printed), f"{page}: not in {name}: {line}"


@pytest.mark.parametrize("page", ["README.md", "RESULTS.md"])
def test_links_and_pictures_are_there(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("directory", RESULTS, ids=lambda path: path.relative_to(ROOT / "results").as_posix())
def test_the_report_says_what_the_curve_says(directory: Path) -> None:
    """The table's error rates are the csv's, arm by arm and bin by bin."""
    text = (directory / "report.md").read_text(encoding="utf-8")
    lines = text.split("\n## Error rate by source length\n")[1].split("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    table = {row[0]: dict(zip(rows[0], row, strict=False)) for row in rows}
    with (directory / "curve.csv").open(encoding="utf-8", newline="") as file:
        points = list(csv.DictReader(file))
    assert points
    for point in points:
        name = ("all " if point["total"] == "True" else "") + point["lengths"]
        # where arms were trained up to different lengths, a total says which it is over
        row = table[name] if name in table else table[f"{name}, {int(point['above']) + 1}–{point['up_to']}"]
        cell = row[point["arm"]]
        assert float(cell.split()[0]) == pytest.approx(float(point["error_rate"]), abs=0.00051)
        assert row["examples"].replace(",", "") == point["examples"]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200
