"""The state of the code: the same for the same source files, wherever they are installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from attnspan.runs import provenance
from attnspan.runs.provenance import code_state


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of two files, in a place of its own."""
    package = tmp_path / "attnspan"
    (package / "models").mkdir(parents=True)
    (package / "a.py").write_text("x = 1\n", encoding="utf-8")
    (package / "models" / "b.py").write_text("y = 2\n", encoding="utf-8")
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    monkeypatch.setattr(provenance, "_SOURCES", (package, tmp_path / "hydra_plugins"))
    return package


def test_every_change_of_a_source_file_changes_it(package: Path) -> None:
    states = {code_state()["code"]}
    (package / "a.py").write_text("x = 2\n", encoding="utf-8")
    states.add(code_state()["code"])
    (package / "models" / "b.py").rename(package / "b.py")
    states.add(code_state()["code"])
    (package / "c.py").touch()
    states.add(code_state()["code"])
    assert len(states) == 4
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.pyc").touch()
    (package / "notes.txt").touch()
    assert code_state()["code"] in states
    assert all(state is not None and len(state) == 12 for state in states)


def test_the_commit_is_that_of_this_code() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert (code_state()["git_commit"] or "").rstrip("+") == done.stdout.strip()
