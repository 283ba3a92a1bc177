"""The pages quote the committed result files, these agree with each other, and what a page links to or names exists."""

from __future__ import annotations

import csv
import re
import runpy
from pathlib import Path

import pytest

from attnspan.analysis.metrics import ERROR_RATE, QUALITY, metrics_in

ROOT = Path(__file__).parents[1]
RESULTS = sorted(path.parent for path in (ROOT / "results").rglob("curve.csv"))
DOCS = [path for path in (ROOT / "docs").rglob("*.md") if not {"_build", "_generated"} & {*path.parts}]
STUDIES = sorted((ROOT / "results").glob("*/README.md"))
PAGES = sorted([*ROOT.glob("*.md"), *DOCS, *(ROOT / "benchmarks").glob("*.md"), *STUDIES])
QUOTING = ["README.md", "docs/index.md", "benchmarks/README.md", *(str(path.relative_to(ROOT)) for path in STUDIES)]
QUOTED = re.compile(r"<!-- from (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)


def test_the_results_pages_are_what_their_script_writes() -> None:
    """RESULTS.md and the page of each study: run results/make_pages.py after a report or index.yaml has changed."""
    written = runpy.run_path(str(ROOT / "results" / "make_pages.py"))["pages"]()
    assert {*STUDIES, ROOT / "RESULTS.md"} == {*written}
    for path, content in written.items():
        assert path.read_text(encoding="utf-8") == content, path.relative_to(ROOT)


def test_the_index_of_the_results_is_one_page() -> None:
    assert len((ROOT / "RESULTS.md").read_text(encoding="utf-8").splitlines()) <= 60


@pytest.mark.parametrize("page", QUOTING)
def test_what_is_quoted_is_what_was_printed(page: str) -> None:
    """Every quoted line is in the named report, word for word."""
    quotations = QUOTED.findall((ROOT / page).read_text(encoding="utf-8"))
    assert quotations
    for name, text in quotations:
        printed = (ROOT / name).read_text(encoding="utf-8").splitlines()
        for line in text.splitlines():
            assert line in ("", "```", *printed), f"{page}: not in {name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_linked_files_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "renames.md" and page not in STUDIES],  # which name what once was
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_named_files_exist(page: Path) -> None:
    """Files in backticks, relative to the repository, to the package or to the page; some are the reader's own."""
    for name in re.findall(r"`([\w.]+(?:/[\w.]+)+\.(?:py|yaml|txt|md))`", page.read_text(encoding="utf-8")):
        roots = (ROOT, ROOT / "src", ROOT / "src" / "attnspan", page.parent)
        assert name.startswith(("my_", "runs/", "reports/")) or any((root / name).exists() for root in roots), name


def test_the_index_names_every_decision() -> None:
    directory = ROOT / "docs" / "decisions"
    indexed = re.findall(r"^- \[.*\]\((\S+)\)", (directory / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(indexed) == sorted(path.name for path in directory.glob("*.md") if path.name != "README.md")


@pytest.mark.parametrize("directory", RESULTS, ids=lambda path: path.relative_to(ROOT / "results").as_posix())
def test_the_report_says_what_the_curve_says(directory: Path) -> None:
    """The numbers of the table are the csv's, arm by arm and bin by bin."""
    metrics = {one.name: one.title for one in metrics_in(QUALITY)}
    compared = {one.get("metric", ERROR_RATE.name) for one in csv_of(directory, "differences.csv")}
    (metric,) = compared or {ERROR_RATE.name}
    rows = table_of(directory, f"{metrics[metric]} by {measured_by(directory)} length")
    table = {row[0]: dict(zip(rows[0], row, strict=False)) for row in rows}
    points = csv_of(directory, "curve.csv")
    assert points
    for point in points:
        name = ("all " if point["total"] == "True" else "") + point["lengths"]
        # where arms were trained up to different lengths, a total says which it is over
        row = table[name] if name in table else table[f"{name}, {int(point['above']) + 1}–{point['up_to']}"]
        cell = row[point["arm"]]
        assert holds(cell, float(point[metric]))
        assert row["examples"].replace(",", "") == point["examples"]


@pytest.mark.parametrize("directory", RESULTS, ids=lambda path: path.relative_to(ROOT / "results").as_posix())
def test_the_report_says_what_the_spans_say(directory: Path) -> None:
    _, _, *rows = table_of(directory, "Spans")
    spans = csv_of(directory, "spans.csv")
    assert [row[0] for row in rows] == [span["arm"] for span in spans]
    for (_, length, interval, threshold, seeds), span in zip(rows, spans, strict=True):
        ends = [] if interval == "–" else interval.split(" to ")  # seeds in groups have none
        for printed, name in ((length, "span"), *zip(ends[:1] + ends[-1:], ("low", "high"), strict=bool(ends))):
            *sign, tokens = printed.split()
            assert sign == span[f"{name}_censored"].split()
            assert float(tokens) == pytest.approx(float(span[name]), abs=0.501)
        assert float(threshold) == pytest.approx(float(span["threshold"]), abs=0.00051)
        assert seeds == span["seeds"]


@pytest.mark.parametrize("directory", RESULTS, ids=lambda path: path.relative_to(ROOT / "results").as_posix())
def test_the_report_says_what_the_differences_say(directory: Path) -> None:
    differences = csv_of(directory, "differences.csv")
    if not differences:
        return  # one arm only
    printed, pair = {}, ""
    for row in table_of(directory, "Advantage over the baseline")[2:]:
        if row[0].startswith("**"):
            pair = row[0].strip("*")
        else:
            printed[pair, row[0]] = row[1:]
    assert len(printed) == len(differences)
    for one in differences:
        name = ("all " if one["total"] == "True" else "") + one["lengths"]
        examples, seeds, advantage, *_ = printed[f"{one['arm']} over {one['baseline']}", name]
        assert (examples.replace(",", ""), seeds) == (one["examples"], one["seeds"])
        if "/" in advantage or "no variation" in advantage:
            assert holds(advantage, float(one["advantage"]))
            continue
        numbers = [float(word) for word in re.sub(r"[\[\],]", "", advantage.replace("−", "-")).split()]
        assert numbers == pytest.approx([float(one[key]) for key in ("advantage", "low", "high")], abs=0.00051)


def measured_by(directory: Path) -> str:
    """Whether lengths are those of sources or of targets: of images only the target has one in tokens."""
    return "source" if "by source length" in (directory / "report.md").read_text(encoding="utf-8") else "target"


def holds(cell: str, value: float) -> bool:
    """Whether a cell gives ``value``, or the means of two groups of seeds with their mean between them."""
    numbers = [float(part.split()[0]) for part in cell.replace("−", "-").split(" / ")]
    return min(numbers) - 0.00051 <= value <= max(numbers) + 0.00051


def table_of(directory: Path, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading of the report."""
    text = (directory / "report.md").read_text(encoding="utf-8")
    lines = text.split(f"\n## {heading}\n")[1].split("\n## ")[0].splitlines()
    rows = [line.replace(" †", "") for line in lines if line.startswith("|")]  # which marks who was still improving
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def csv_of(directory: Path, name: str) -> list[dict[str, str]]:
    """The rows of a file beside the report."""
    with (directory / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
