"""The benchmark scripts import what the package still has; what sweeps expect is what the committed results say."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pandas as pd
import pytest
from benchmarks import check_results

RESULTS = Path(__file__).parents[1] / "results"
SCRIPTS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_its_imports_exist(script: Path) -> None:
    """Also those inside functions; those of other toolkits cannot be checked here."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("attnspan"):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


CHECKED = [path.stem for path in (RESULTS.parent / "sweeps").glob("*.yaml") if check_results.checks_of(path.stem)]


@pytest.mark.parametrize("sweep", CHECKED)
def test_the_committed_results_are_as_their_sweep_expects(sweep: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_results.main(sweep, RESULTS / sweep) == 0
    assert "differs" not in capsys.readouterr().out


def test_a_result_out_of_its_tolerance_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One cell is changed, and one data set is left out."""
    (tmp_path / "copy").mkdir()
    curve = pd.read_csv(RESULTS / "long_sequences" / "copy" / "curve.csv")
    curve.loc[(curve["arm"] == "plain") & (curve["lengths"] == "41–45"), "error_rate"] = 0.792
    curve.to_csv(tmp_path / "copy" / "curve.csv", index=False)
    assert check_results.main("long_sequences", tmp_path) == 1
    rows = [line for line in capsys.readouterr().out.splitlines() if "differs" in line]
    assert [line.split("|")[1].strip() for line in rows] == ["copy"] + ["pronunciation"] * 3
    assert "0.792" in rows[0]
