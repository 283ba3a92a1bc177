"""``attnspan-status`` tells the truth about files that others write, and changes none."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from attnspan.cli.status import _screen, main
from attnspan.files import read_json, write_json, write_text
from attnspan.runs.layout import LOCK, SUMMARY
from attnspan.runs.status import FAILED, FINISHED, INTERRUPTED, QUEUED, RUNNING, TRAINING, Status
from attnspan.sweeps import overview
from attnspan.sweeps.overview import Overview, Row, read_overview
from attnspan.sweeps.queue import enqueue
from attnspan.sweeps.time_estimate import RunTimes, makespan
from tests.stub_run import stub_job, write_results

ROOT = Path(__file__).parents[2]


def tell(directory: Path, **content: object) -> Path:
    fields = {"arm": directory.parent.name, "data": directory.parent.parent.name, "seed": 1, "updates": 100}
    Status(**(fields | content)).write(directory)  # type: ignore[arg-type]
    return directory


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """One run in each state, and a damaged one; nobody holds a lock."""
    root = tmp_path / "runs" / "reverse" / "plain"
    write_results(root / "a", seconds=40.0, updates=100)
    tell(root / "b", state=RUNNING, phase=TRAINING, update=25, loss=1.25, remaining=30.0)
    tell(root / "c", state=QUEUED)
    tell(root / "d", state=FAILED, reason="the loss is nan", traceback="Traceback ...")
    tell(root / "e", state=RUNNING, phase=TRAINING, update=50, pid=2**22 + 1)
    write_text(root / "f" / "status.json", "{")
    write_text(root / "d" / "run.log", "...")
    return tmp_path / "runs"


def test_a_table_for_people(runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it
    with FileLock(runs / "reverse" / "plain" / "b" / LOCK):
        assert main([str(runs)]) == 0
    headline, header, *rows = capsys.readouterr().out.splitlines()
    assert headline == (
        "1 of 6 runs finished, 1 running, 1 failed, 1 unknown, 1 interrupted, 1 queued, about 01:10 left"
    )  # b has 30 s left, c takes the 40 s of a, one at a time
    assert " ".join(header.split()) == "arm data seed state update loss left error rate where, why"
    assert [row.split()[3] for row in rows] == ["finished", "training", "queued", "failed", "interrupted", "unknown"]
    assert rows[1].split()[4:7] == ["25/100", "1.250", "00:30"]
    assert "0.250" in rows[0]
    assert f"the loss is nan; {runs}/reverse/plain/d/run.log" in rows[3]
    assert "its process is gone" in rows[4]
    assert "f/status.json: not readable as JSON" in rows[5]


def test_a_document_for_scripts(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FileLock(runs / "reverse" / "plain" / "b" / LOCK):
        assert main([str(runs), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["runs", "counts", "remaining_seconds"]
    assert document["counts"] == dict.fromkeys(["queued", "running", "finished", "failed", "interrupted", "unknown"], 1)
    assert document["remaining_seconds"] == 70
    head = overview.__doc__ or ""
    for run in document["runs"]:
        assert all(key in head.replace(",", " ").replace("`", " ").split() for key in run)
    finished, running, *_ = document["runs"]
    assert (finished["run_id"], finished["state"], finished["error_rate"], finished["seconds"]) == (
        "a",
        "finished",
        0.25,
        40.0,
    )
    assert (running["phase"], running["update"], running["loss"], running["remaining_seconds"]) == (
        "training",
        25,
        1.25,
        30.0,
    )
    assert running["pid"] == os.getpid()


def test_no_number_that_json_lacks(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell(runs / "reverse" / "plain" / "d", state=FAILED, loss=float("nan"), remaining=float("inf"))
    main([str(runs / "reverse" / "plain" / "d"), "--json"])
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["loss"] is None
    assert run["remaining_seconds"] is None


def test_variants_of_an_arm_can_be_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what their command lines set, as in the sweep's own table; in whatever state they are."""
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it
    plain, other = tmp_path / "reverse" / "plain", tmp_path / "reverse" / "bahdanau"
    common = "decoder=plain seed=1 data.symbols=6 study=mine hydra.mode=RUN"
    write_results(plain / "a")
    summary = read_json(plain / "a" / SUMMARY)
    write_json(plain / "a" / SUMMARY, summary | {"command": f"attnspan-train {common} model.hidden_size=64"})
    tell(plain / "b", state=FAILED, command=f"attnspan-train {common} model.hidden_size=128 '+hooks=[a, b]' threads=2")
    enqueue([replace(stub_job(plain / "c"), command=f"attnspan-train {common}")], rerun=False)
    tell(plain / "d", state=FAILED)  # nobody knows, and the others still differ
    tell(plain / "e", state=FAILED, command="attnspan-train 'model.hidden_size=")
    tell(other / "f", state=FAILED, command="attnspan-train decoder=bahdanau seed=1 model.hidden_size=32")
    main([str(tmp_path), "--json"])
    told = {run["run_id"]: run["overrides"] for run in json.loads(capsys.readouterr().out)["runs"]}
    assert told == {
        "a": "model.hidden_size=64",
        "b": "model.hidden_size=128 +hooks=[a, b]",
        "c": None,
        "d": None,
        "e": None,
        "f": None,
    }
    main([str(tmp_path)])
    _, header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:5] == ["arm", "data", "seed", "overrides", "state"]
    assert any("1  model.hidden_size=128 +hooks=[a, b]  failed" in row for row in rows)


def test_a_run_that_lies_nowhere_in_particular(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no data and arm above it, so nobody knows how long it takes."""
    monkeypatch.setattr(overview, "current_status", lambda directory: Status(state=QUEUED, updates=9))
    for path in ("/run", "/"):
        monkeypatch.setattr(overview, "find_runs", lambda paths, path=path: [Path(path)])
        found = read_overview([tmp_path])
        assert (found.rows[0].state, found.remaining_seconds) == (QUEUED, None)


def test_what_is_to_be_computed_again(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is queued, and no update of it is done; what it was before can be read."""
    job = stub_job(runs / "reverse/plain/a", updates=100)
    tell(job.directory, state=FINISHED, update=100)
    failed = replace(job, directory=runs / "reverse/plain/d")
    enqueue([job, failed], rerun=True)
    main([str(job.directory), str(failed.directory), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["counts"][QUEUED] == 2
    assert document["remaining_seconds"] == 80  # a took 40 s
    assert [(run["update"], run["reason"]) for run in document["runs"]] == [
        (0, "finished before"),
        (0, "failed before: the loss is nan"),
    ]


def test_jobs_of_slurms(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it
    for name, state in (("a", QUEUED), ("b", INTERRUPTED), ("c", FAILED)):
        tell(tmp_path / "reverse" / "plain" / name, state=state, slurm_job="7_1")
    main([str(tmp_path)])
    shown = capsys.readouterr().out
    assert "queued; SLURM job 7_1; " in shown
    assert "interrupted; SLURM job 7_1 may still be there; " in shown
    assert "failed; /" in shown
    main([str(tmp_path), "--json"])
    found = json.loads(capsys.readouterr().out)["runs"]
    assert [run["slurm_job"] for run in found] == ["7_1", "7_1", None]


@pytest.mark.parametrize("kind", ["nothing there", "an empty directory", "a file", "a list of nothing"])
def test_one_line_for_what_cannot_be_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    path = tmp_path / "runs"
    if kind == "an empty directory":
        path.mkdir()
    elif kind != "nothing there":
        path.write_text("\n", encoding="utf-8")
    word = f"@{path}" if kind == "a list of nothing" else str(path)
    if kind == "a list of nothing":
        path.write_text(str(tmp_path / "gone"), encoding="utf-8")
    assert main([word]) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith(f"attnspan-status: {tmp_path}")
    assert not printed.out


def test_it_changes_nothing(runs: Path) -> None:
    def content() -> dict[Path, tuple[int, bytes]]:
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in runs.rglob("*") if p.is_file()}

    before = content()
    directories = {p: p.stat().st_mtime_ns for p in runs.rglob("*") if p.is_dir()}
    read_overview([runs])
    assert content() == before
    assert {p: p.stat().st_mtime_ns for p in runs.rglob("*") if p.is_dir()} == directories


def test_a_list_of_runs(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = runs / "reverse" / "plain"
    (tmp_path / "mine.txt").write_text(f"{plain / 'a'}\n{plain / 'd'}\n", encoding="utf-8")
    main([f"@{tmp_path / 'mine.txt'}"])
    assert "1 of 2 runs finished, 1 failed" in capsys.readouterr().out


def test_a_terminal_of_80_columns_shows_every_run_on_a_line_of_its_own() -> None:
    where = {"arm": "luong_general_feeding", "overrides": "model.hidden_size=128"}
    at = {"phase": TRAINING, "update": 1400, "updates": 20_000, "loss": 1.2}
    runs = [
        Row(run_id="a", directory="a", seed=1, state=RUNNING, **at, **where),
        Row(run_id="b", directory="b", seed=2, state=FAILED, reason="out of memory: tried to allocate 2 GB", **where),
        Row(run_id="c", directory="c", seed=3, state=FINISHED, update=500, updates=500, error_rate=0.123, **where),
    ]
    screen = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=80)
    screen.print(_screen(Overview(rows=runs, remaining_seconds=60.0), rows=20, width=80))
    head, _, *lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, (head, *lines))) <= 80
    running, failed, finished, why = lines
    assert running.startswith("luong_general_feeding seed 1")
    assert running.split()[-3:] == ["training", "1400/20000", "1.200"]
    assert failed.split()[-1] == "failed"
    assert finished.split()[-3:] == ["finished", "500/500", "0.123"]
    assert "out of memory" in why


class Terminal:
    """The command in a terminal of 100 columns."""

    def __init__(self, *arguments: str) -> None:
        self._own, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "attnspan.cli.status", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
        )
        os.close(theirs)
        self.seen = ""

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + 60
        while words not in self.seen:
            assert time.monotonic() < deadline, self.seen
            self.seen += os.read(self._own, 65536).decode()

    def end(self) -> int:
        while True:
            try:
                chunk = os.read(self._own, 65536)
            except OSError:  # that is how a terminal ends
                break
            if not chunk:
                break
            self.seen += chunk.decode()
        os.close(self._own)
        return self.process.wait(timeout=60)


def test_in_a_terminal_it_refreshes_until_nothing_runs(runs: Path) -> None:
    b = runs / "reverse" / "plain" / "b"
    (runs / "reverse" / "plain" / "c" / "status.json").unlink()
    with FileLock(b / LOCK):
        terminal = Terminal(str(runs))
        terminal.wait_for("25/100")
        tell(b, state=RUNNING, phase=TRAINING, update=26)
        terminal.wait_for("26/100")
        write_results(b)
    assert terminal.end() == 0
    assert "2 of 5 runs finished" in terminal.seen


def test_ctrl_c_leaves_it(runs: Path) -> None:
    with FileLock(runs / "reverse" / "plain" / "b" / LOCK):
        terminal = Terminal(str(runs))
        terminal.wait_for("25/100")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
    assert "Traceback" not in terminal.seen


def test_times_are_medians_scaled_by_updates(tmp_path: Path) -> None:
    for name, seconds, updates in (("a", 10.0, 100), ("b", 30.0, 100), ("c", 80.0, 200)):
        write_results(tmp_path / "reverse" / "plain" / name, seconds=seconds, updates=updates)
    write_text(tmp_path / "reverse" / "plain" / "broken" / SUMMARY, "{}")
    times = RunTimes(tmp_path)
    assert times.expected(data="reverse", arm="plain", updates=100) == 30  # of 10, 30 and 40
    assert times.expected(data="reverse", arm="plain", updates=50) == 15
    assert times.expected(data="reverse", arm="bahdanau", updates=50) is None


def test_a_sweep_takes_as_long_as_its_busiest_place() -> None:
    assert makespan([3.0, 3.0, 2.0, 2.0], 2) == 5
    assert makespan([10.0, 1.0, 1.0], 2) == 10
    assert makespan([], 2) == 0
