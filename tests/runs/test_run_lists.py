"""Lists of runs: they grow, and they are found where they were moved to with their runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from attnspan.cli.console import ListParser
from attnspan.errors import InputError
from attnspan.runs.run_lists import add_to_list, read_list
from attnspan.sweeps.job import Job
from attnspan.sweeps.plan import Plan


def runs(root: Path, *names: str) -> list[Path]:
    found = [root / "reverse" / "plain" / name for name in names]
    for directory in found:
        directory.mkdir(parents=True, exist_ok=True)
    return found


def test_a_list_grows(tmp_path: Path) -> None:
    a, b, c, d = runs(tmp_path, "a", "b", "c", "d")
    listed = tmp_path / "mine.txt"
    assert add_to_list(listed, [a, b, c]) == 0
    assert add_to_list(listed, [d]) == 3
    assert read_list(listed) == [str(one) for one in (a, b, c, d)]
    assert add_to_list(listed, [b]) == 3  # again: once
    assert sorted(read_list(listed)) == sorted(str(one) for one in (a, b, c, d))
    a.rmdir()
    assert add_to_list(listed, [d]) == 2  # a run that is gone is no run of the study


def test_a_relative_run_and_its_absolute_path_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (a,) = runs(Path("runs"), "a")
    assert add_to_list(Path("runs/mine.txt"), [a]) == 0
    assert add_to_list(Path("runs/mine.txt"), [a.absolute()]) == 0
    assert len(read_list(Path("runs/mine.txt"))) == 1


@pytest.mark.parametrize("is_absolute", [True, False])
def test_a_list_that_was_moved_with_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_absolute: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    directories = runs(tmp_path / "runs" if is_absolute else Path("runs"), "a", "b")
    evaluation = directories[0] / "evaluations" / "long-0123"
    evaluation.mkdir(parents=True)
    add_to_list(Path("runs/mine.txt"), directories)
    add_to_list(Path("runs/evaluations/long.txt"), [evaluation])
    Path("elsewhere").mkdir()
    Path("runs").rename("elsewhere/results")
    moved = Path("elsewhere/results/reverse/plain")
    assert read_list(Path("elsewhere/results/mine.txt")) == [str(moved / "a"), str(moved / "b")]
    found = read_list(Path("elsewhere/results/evaluations/long.txt"))
    assert found == [str(moved / "a" / "evaluations" / "long-0123")]


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "x", "No such file"), (tmp_path / "latin", "UTF-8")):
        with pytest.raises(InputError, match=why):
            read_list(path)
        parser = ListParser(prog="attnspan-report")
        parser.add_runs()
        with pytest.raises(SystemExit):
            parser.parse_args([f"@{path}"])
        assert f"@{path}: cannot be read" in capsys.readouterr().err


def plan(root: Path, *names: str, study: str | None = None) -> Plan:
    config = {"arm": "plain", "seed": 1, "trainer": {"max_steps": 1}, "data_name": "reverse"}
    jobs = [Job(config=config, directory=directory, command="") for directory in runs(root, *names)]
    return Plan(jobs=jobs, settings={"study": study, "runs_dir": str(root)}, n_jobs=1)


def launch(one: Plan) -> str:
    one.name_the_unnamed()
    add_to_list(one.listed, [job.directory for job in one.jobs])
    return one.listed.name


def test_an_unnamed_sweep_takes_no_list_of_another(tmp_path: Path) -> None:
    assert launch(plan(tmp_path, "a", "b")) == "sweep.txt"
    assert launch(plan(tmp_path, "a", "b")) == "sweep.txt"  # the same command again
    assert launch(plan(tmp_path, "c")) == "sweep-2.txt"
    assert launch(plan(tmp_path, "d")) == "sweep-3.txt"
    assert launch(plan(tmp_path, "a", "b", "e")) == "sweep.txt"  # the same with more seeds
    assert len(read_list(tmp_path / "sweep.txt")) == 3
    assert launch(plan(tmp_path, "a", study="mine")) == launch(plan(tmp_path, "b", study="mine")) == "mine.txt"
    assert len(read_list(tmp_path / "mine.txt")) == 2


@pytest.mark.parametrize("folder", ["my runs", "it's", "a&b", "plain"])
def test_the_printed_command_is_one_for_a_shell(tmp_path: Path, folder: str) -> None:
    from io import StringIO

    from rich.console import Console

    from hydra_plugins.attnspan_sweeps.launchers import SweepLauncher

    class Launcher(SweepLauncher):
        def run(self, plan: Plan, console: Any) -> None:
            for job in plan.jobs:
                job.outcome = "finished before"

    one = plan(tmp_path / folder, "a")
    one.settings |= {"rerun": False, "threads": 1, "fail_fast": False}
    printed = StringIO()
    Launcher().carry_out(one, Console(file=printed, width=60))
    (line,) = (line for line in printed.getvalue().splitlines() if line.startswith("report: "))
    words = shlex.split(line.removeprefix("report: "))
    assert words == ["attnspan-report", f"@{tmp_path / folder}/sweep.txt", "--out", "reports/sweep"]
