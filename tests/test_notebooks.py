"""The notebooks run from their first cell to their last, in this process: a kernel each would take half a minute."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

import attnspan
from attnspan.config.identity import run_id
from attnspan.errors import InputError
from attnspan.runs.layout import SUMMARY
from tests.browser import CHROMIUM, browser
from tests.conftest import TINY, Compose

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SHORT = {"max_steps=300": "max_steps=20", "max_steps=200": "max_steps=20", "interval=100": "interval=10"}


def cells(path: Path) -> list[str]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for long, short in SHORT.items():
        code = [one.replace(long, short) for one in code]
    return code


def execute(path: Path) -> dict[str, Any]:
    """The names that the cells leave behind, and what each cell's last line shows, under ``shown``."""
    names: dict[str, Any] = {}
    shown = []
    for cell in cells(path):
        *body, last = cell.rstrip().splitlines()
        whole = compile(cell, path.name, "exec")
        try:
            value = compile(last, path.name, "eval")
        except SyntaxError:
            exec(whole, names)
        else:
            exec("\n".join(body), names)
            shown.append(eval(value, names))
    return names | {"shown": shown}


@pytest.fixture
def here(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    GlobalHydra.instance().clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, here: Path) -> None:
    shown = execute(path)["shown"]
    views = [one._repr_html_() for one in shown if hasattr(one, "_repr_html_")]
    assert len(views) >= 2
    assert all(view.startswith(("<p>", "<iframe", "<div", "<style")) for view in views)


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> attnspan.LoadedRun:
    GlobalHydra.instance().clear()
    return attnspan.train(["decoder=bahdanau", "seed=1", *TINY, f"runs_dir={tmp_path_factory.mktemp('runs')}"])


def test_a_run_from_python_is_that_of_the_command(composed: Compose, run: attnspan.LoadedRun) -> None:
    summary = json.loads((run.directory / SUMMARY).read_text())
    assert summary["command"].startswith("attnspan-train decoder=bahdanau seed=1 data=reverse")
    config = composed("decoder=bahdanau", "seed=1", *TINY)
    assert run.directory.name == run_id(config, data_fingerprint=summary["data_fingerprint"]) == summary["run_id"]
    study = attnspan.load_study(run.directory)
    assert len(study.records) == 48
    assert study.runs["run_id"].tolist() == [summary["run_id"]]
    assert study.runs["error_rate"].iloc[0] == pytest.approx(summary["test"]["error_rate"], abs=1e-4)
    GlobalHydra.instance().clear()
    with pytest.raises(InputError, match="bahdanaux"):
        attnspan.train(["decoder=bahdanaux"])


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
def test_what_is_shown_inline_is_the_runs_and_runs_in_its_frame(run: attnspan.LoadedRun, tmp_path: Path) -> None:
    sources = attnspan.load_study(run.directory).records["source"]
    hypothesis = next(one for one in run.decode(sources.tolist()) if one.tokens)
    assert repr(hypothesis).startswith("Hypothesis('")
    assert "weights [" in repr(hypothesis)
    inline, alone = tmp_path / "notebook.html", tmp_path / "shown.html"
    inline.write_text(f"<!doctype html><title>a notebook</title>{hypothesis.show()._repr_html_()}", encoding="utf-8")
    hypothesis.show().save(alone)
    with browser(tmp_path / "profile") as page:
        page.open(inline, width=1000)
        assert page.of("Runtime.exceptionThrown", "Log.entryAdded") == []
        page.open(alone, width=1000)
        while not page.evaluate("document.querySelectorAll('.panel').length"):
            time.sleep(0.02)
        assert page.of("Runtime.exceptionThrown", "Log.entryAdded") == []
        shown = page.evaluate("[...panels[0].q].map(weightOf)")
    assert hypothesis.weights is not None
    assert shown == pytest.approx(hypothesis.weights.numpy().ravel(), abs=0.004)
