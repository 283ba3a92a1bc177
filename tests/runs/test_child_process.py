"""Our processes import what we import, whatever lies in the current directory; a run is rank 0 whatever is set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnspan.cli.single_run import hidden_package, run_command
from attnspan.errors import InputError
from attnspan.runs.child_process import child_environment
from attnspan.training.distributed import forget_launchers, rank


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of a user's, with modules that have the names of others'."""
    for name in ("datasets", "random", "tokenizers", "statistics", "wandb"):
        (tmp_path / f"{name}.py").write_text("print('words: 8')\nraise SystemExit('a script')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    return tmp_path


@pytest.mark.parametrize("module", ["attnspan.cli.job", "attnspan.sweeps.preflight", "attnspan.data.pipeline.tokenize"])
def test_modules_in_the_current_directory_are_not_imported(elsewhere: Path, module: str) -> None:
    (elsewhere / "probe.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    code = f"import random, statistics, {module}, importlib.util as util; assert util.find_spec('probe') is None"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_who_asks_for_the_current_directory_gets_it(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert child_environment(A="b") == dict(os.environ) | {"PYTHONSAFEPATH": "1", "A": "b"}
    for place in ("", str(elsewhere)):
        monkeypatch.setattr(sys, "path", [place, *sys.path])
        assert "PYTHONSAFEPATH" not in child_environment()


def test_a_module_that_hides_a_package_is_named(elsewhere: Path) -> None:
    error = ImportError("cannot import name 'Dataset'", name="datasets", path=str(elsewhere / "datasets.py"))
    module = type(sys)("datasets")
    module.__file__ = str(elsewhere / "datasets.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "datasets", module)
        words = "is imported in place of the package datasets; rename it, or take its directory out of PYTHONPATH"
        assert hidden_package(error) == f"{elsewhere}/datasets.py: {words}"
    assert hidden_package(ImportError("no", name="mine_own", path=str(elsewhere / "mine_own.py"))) is None
    assert hidden_package(ImportError("no", name="pytest")) is None


VARIABLES = [
    {"LOCAL_RANK": "abc"},
    {"LOCAL_RANK": "1"},
    {"RANK": "1"},
    {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1"},
    {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "1", "NODE_RANK": "x"},
    {"SLURM_STEP_NUM_TASKS": "many", "PMI_SIZE": ""},
]


@pytest.fixture
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment comes back as it was."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return monkeypatch


@pytest.mark.parametrize("variables", VARIABLES, ids=str)
def test_a_run_is_rank_0_whatever_the_environment_says(
    no_launcher: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    os.environ.update(variables)
    assert rank() == 0
    forget_launchers()
    assert rank() == 0
    left = set(variables) & set(os.environ)
    assert left <= {"SLURM_STEP_NUM_TASKS", "PMI_SIZE"}


def test_a_process_that_rank_0_started_keeps_its_rank(no_launcher: pytest.MonkeyPatch) -> None:
    os.environ.update({"ATTNSPAN_FIRST_PROCESS": str(os.getppid()), "LOCAL_RANK": "1", "WORLD_SIZE": "2"})
    forget_launchers()
    assert rank() == 1
    assert os.environ["WORLD_SIZE"] == "2"
    os.environ["ATTNSPAN_FIRST_PROCESS"] = "1"  # of a grandparent: a job of its sweep
    forget_launchers()
    assert rank() == 0


@pytest.mark.parametrize(
    ("name", "launcher"),
    [("SLURM_STEP_NUM_TASKS", "srun"), ("OMPI_COMM_WORLD_SIZE", "mpirun"), ("PMI_SIZE", "mpirun")],
)
def test_several_processes_of_one_command_are_refused(
    no_launcher: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str, launcher: str
) -> None:
    os.environ[name] = "4"
    with pytest.raises(InputError, match=f"{launcher} has started 4 processes"):
        forget_launchers()
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: print("runs"))
    assert exit_.value.code == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert f"use {launcher} -n1" in printed.err
