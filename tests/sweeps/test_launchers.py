"""Which launchers a sweep can have, and what their arguments may be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from attnspan.cli.train import main
from tests.conftest import TINY

OURS = ("processes", "submitit_slurm")


def refusal(words: tuple[str, ...], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The line with which a sweep is refused."""
    monkeypatch.setattr(sys, "argv", ["attnspan-train", "-m", "seed=1,2", *TINY, *words])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize("name", ["basic", "joblib", "submitit_local"])
def test_a_launcher_that_is_not_ours(
    name: str, tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is installed or not, and also where a sweep's file chooses it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "sweep").mkdir(parents=True)
    chosen = f"# @package _global_\ndefaults:\n  - override /hydra/launcher: {name}\n"
    (tmp_path / "own" / "sweep" / "few.yaml").write_text(chosen, encoding="utf-8")
    for words in ((f"hydra/launcher={name}",), ("--config-dir", "own", "sweep=few")):
        line = refusal(words, capfd, monkeypatch)
        assert line.startswith(f"attnspan-train: hydra/launcher={name}: ")
        assert all(launcher in line for launcher in OURS)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("n_jobs", ["0", "-1", "true", "two", "1.5"])
def test_a_number_of_jobs_that_is_none(
    n_jobs: str, tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refusal((f"hydra.launcher.n_jobs={n_jobs}",), capfd, monkeypatch)
    assert line.startswith("attnspan-train: hydra.launcher.n_jobs: must be null or a whole number of at least 1, not ")
