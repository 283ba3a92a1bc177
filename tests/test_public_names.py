"""What `import attnspan` offers, to a person who types and to a type checker."""

from __future__ import annotations

import contextlib
import io
import pydoc
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from mypy import api

import attnspan
from attnspan.evaluation.loaded_run import Hypothesis
from tests.documented_blocks import COMMANDS, call

ROOT = Path(__file__).parents[1]


def test_dir_shows_the_public_names_and_no_others() -> None:
    assert [name for name in dir(attnspan) if not name.startswith("_")] == sorted(
        name for name in attnspan.__all__ if not name.startswith("_")
    )
    assert all(getattr(attnspan, name) is not None for name in attnspan.__all__)
    with pytest.raises(AttributeError, match="no attribute 'loadrun'"):
        attnspan.loadrun  # noqa: B018


def test_help_describes_them() -> None:
    text = pydoc.plain(pydoc.render_doc(attnspan))
    for words in ("load_run(directory", "class LoadedRun", "class Hypothesis", "VERSION", "attnspan-train"):
        assert words in text


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert attnspan.__version__ == version("attnspan") == project["version"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_its_version(name: str) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert call(name, ["--version"]) == 0
    assert out.getvalue() == f"{name} {attnspan.__version__}\n"


def test_a_hypothesis_prints_as_one_line() -> None:
    one = Hypothesis(
        text="AH T EH N", tokens=["AH", "T", "EH", "N"], log_prob=-0.12345, truncated=False,
        source_tokens=list("atten"), unknown_tokens=[], weights=torch.rand(4, 5), ids=[5, 6, 7, 8],
    )  # fmt: skip
    assert repr(one) == str(one) == "Hypothesis('AH T EH N', log_prob=-0.123, weights [4, 5])"


SCRIPT = """
import attnspan

run = attnspan.load_run("runs/one", trusted=["my_scores"])
best: list[attnspan.Hypothesis] = run.decode(["a b"], beam_size=5)
several: list[list[attnspan.Hypothesis]] = run.decode(["a b"], n_best=3)
text: str = best[0].text
probability: float = several[0][0].log_prob
if best[0].weights is not None:
    rows, columns = best[0].weights.shape
print(text, probability, attnspan.__version__.split("."))
"""


@pytest.mark.slow
def test_a_strictly_typed_script_may_use_them(tmp_path: Path) -> None:
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nfollow_imports = skip\n[mypy-attnspan.*]\nfollow_imports = silent\n", encoding="utf-8"
    )
    script = tmp_path / "script.py"
    script.write_text(f"{SCRIPT}best[0].txt\n", encoding="utf-8")
    options = ["--strict", "--config-file", str(tmp_path / "mypy.ini"), "--cache-dir", str(tmp_path / "cache")]
    printed, error, _ = api.run([*options, str(script)])
    line, summary = printed.splitlines()
    assert '"Hypothesis" has no attribute "txt"' in line, printed + error  # the only wrong line is the last
    assert line.startswith(f"{script}:{len(script.read_text(encoding='utf-8').splitlines())}:")
    assert summary.startswith("Found 1 error")
