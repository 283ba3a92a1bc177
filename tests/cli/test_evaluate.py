"""attnspan-evaluate from the command line: runs side by side, and the report that it names."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest
from hydra.core.global_hydra import GlobalHydra

from attnspan.cli import evaluate, report
from attnspan.config.identity import run_directory
from attnspan.config.instantiate import build_corpus
from attnspan.data.pipeline.prepare import prepare
from attnspan.files import read_json
from attnspan.runs.layout import find_runs
from attnspan.training.run import execute
from tests.conftest import TINY, Compose


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["attnspan-evaluate", *words])
    try:
        evaluate.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def runs(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and one that is not."""
    directory = tmp_path_factory.mktemp("runs")
    config = composed(*TINY, f"runs_dir={directory}", "decoder=plain")
    data = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    run = run_directory(config, data_fingerprint=data.fingerprint)
    execute(config, data=data, directory=run, command="test", report=lambda status: None)
    (run.parent / "unfinished").mkdir()
    (run.parent / "unfinished" / "config.yaml").write_text("arm: plain\n", encoding="utf-8")
    return directory


def test_evaluations_are_made_skipped_and_reported(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (str(runs), "decoding=beam", "decoding.beam_size=1,2", "name=beams")
    assert command(monkeypatch, *words) == 0
    out, err = capfd.readouterr()
    assert "unfinished: is not finished" in err
    made = find_runs(sorted(runs.glob("*/*/*/evaluations")))
    assert sorted(one.name.rpartition("-")[0] for one in made) == ["beams-beam_size-1", "beams-beam_size-2"]
    summary = read_json(made[0] / "summary.json")
    assert shlex.split(summary["command"])[2:] == ["decoding=beam", "decoding.beam_size=1"]
    assert not (made[0] / "job.yaml").exists()
    (listed,) = (shlex.split(line)[2] for line in out.splitlines() if line.startswith("report: attnspan-report"))
    assert sorted(Path(listed[1:]).read_text(encoding="utf-8").split()) == sorted(map(str, made))
    assert command(monkeypatch, *words) == 0
    assert capfd.readouterr().out.count("finished before, skipped") == 2

    assert report.main([listed, str(next(runs.glob("*/plain/*/summary.json")).parent), "--out", "out"]) == 0
    curve = pd.read_csv("out/curve.csv")
    beams = {f"plain decoding=beam decoding.beam_size={size}" for size in (1, 2)}
    assert {*curve["arm"]} == {"plain decoding=greedy", *beams}


def test_a_mistake_is_one_line_and_starts_nothing(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(runs.rglob("*"))
    for words, message in (
        ((str(runs), "decoder=plain"), "decoder: the run is trained"),
        ((str(runs), "decoding.beem_size=1"), "decoding.beem_size: there is no such key"),
        ((str(runs), "hydra.launcher.n_jobs=x"), "hydra.launcher.n_jobs: must be null or a whole number"),
        ((str(runs), "splitt=test"), "splitt: there is no such key; did you mean 'split'"),
        ((str(runs), "rerun=maybe"), "rerun: must be true or false"),
        ((str(runs / "nowhere"),), "no such directory"),
        (("decoding=beam",), "no run is given"),
        ((str(runs), "data=nothing"), "there is no such data"),
        ((str(runs / "reverse" / "plain" / "unfinished"),), "none of these runs is finished"),
    ):
        assert command(monkeypatch, *words) == 2, words
        lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("left out")]
        assert len(lines) == 1, lines
        assert lines[0].startswith("attnspan-evaluate: ")
        assert message in lines[0]
    assert sorted(runs.rglob("*")) == before
