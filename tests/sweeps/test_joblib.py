"""Hydra's joblib launcher, where it is installed: what happens to a job stays with it there too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attnspan.runs.completeness import is_finished
from attnspan.runs.status import FAILED, FINISHED, INTERRUPTED, RUNNING, current_status, is_locked
from attnspan.sweeps.processes import NOT_STARTED
from tests.conftest import TINY

pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
ROOT = Path(__file__).parents[2]
JOBLIB = ("-m", "hydra/launcher=joblib", "study=mine", "decoder=plain", *TINY)
TROUBLE = ("optimizer._target_=tests.troubles.Trouble", "+optimizer.how=exit,kill,none")


def start(cwd: Path, cache: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "attnspan.cli.train", *JOBLIB, *words],
        cwd=cwd,
        env=os.environ | {"ATTNSPAN_CACHE": str(cache), "PYTHONPATH": str(ROOT), "COLUMNS": "1000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal's foreground, to which Ctrl-C goes
    )


def test_every_failure_stays_where_it_is(tmp_path: Path, cache: Path) -> None:
    with start(tmp_path, cache, *TROUBLE) as process:
        printed, complaint = process.communicate(timeout=240)
    assert process.returncode == 1, printed + complaint
    table = [line for line in printed.splitlines() if "how=" in line]
    for how, state, reason in (
        ("exit", FAILED, "sys.exit(3)"),
        ("kill", FAILED, "killed (out of memory?)"),
        ("none", FINISHED, ""),
    ):
        (row,) = (line for line in table if f"how={how} " in line)
        assert f" {state} " in row
        assert reason in row
    states = [current_status(tmp_path / line).state for line in (tmp_path / "runs" / "mine.txt").read_text().split()]
    assert states == [FAILED, FAILED, FINISHED]


def test_fail_fast(tmp_path: Path, cache: Path) -> None:
    """After the first that fails the running one is stopped, with its checkpoint, and no other is started."""
    long = ("trainer.max_steps=100000", "trainer.val_check_interval=50000")
    with start(tmp_path, cache, TROUBLE[0], "seed=1,2", "+optimizer.how=none,exit", *long, "fail_fast=true") as process:
        printed, complaint = process.communicate(timeout=240)
    assert process.returncode == 1, printed + complaint
    table = [line for line in printed.splitlines() if "how=" in line]
    (failed,) = (line for line in table if f" {FAILED} " in line)
    assert "how=exit" in failed
    assert sum(f" {INTERRUPTED} " in line for line in table) <= 1
    assert sum(f" {NOT_STARTED} " in line for line in table) >= 2
    directories = [tmp_path / line for line in (tmp_path / "runs" / "mine.txt").read_text().split()]
    assert not any(is_locked(directory) or is_finished(directory) for directory in directories)


def test_ctrl_c_stops_all(tmp_path: Path, cache: Path) -> None:
    """What was running keeps its checkpoint, nobody is left behind, and the table says how it stands."""
    with start(
        tmp_path, cache, "seed=1,2,3", "trainer.max_steps=100000", "trainer.val_check_interval=50000"
    ) as process:
        deadline = time.monotonic() + 120

        def under_way() -> list[Path]:
            found = (path.parent for path in tmp_path.rglob("status.json"))
            return [path for path in found if (status := current_status(path)).state == RUNNING and status.update > 3]

        while not under_way():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        printed, complaint = process.communicate(timeout=90)
    assert process.returncode == 130, printed + complaint
    assert "interrupted; the same command goes on" in complaint
    directories = [path.parent for path in tmp_path.rglob("status.json")]
    assert len(directories) == 3
    for directory in directories:
        assert not is_locked(directory)
        assert current_status(directory).state == INTERRUPTED
        assert not is_finished(directory)
    assert NOT_STARTED in printed
    assert any((directory / "checkpoints" / "last.ckpt").exists() for directory in directories)
