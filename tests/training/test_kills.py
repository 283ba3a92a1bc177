"""Runs killed for real, by SIGKILL at random moments, end with the numbers of one that nobody touched."""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from attnspan.runs.checkpoint_file import read_checkpoint
from attnspan.runs.layout import LOCK, decoded_file
from attnspan.runs.status import TESTING, TRAINING, VALIDATING, read_status
from tests.conftest import Compose
from tests.kills import VICTIM, assert_same, attempt, begin, directory_of, kill_and_go_on
from tests.waiting import wait_until

KILLS = 12
PHASES = {TRAINING, VALIDATING, TESTING}
SEED = int(os.environ.get("KILLS_SEED", "7"))


def test_killed_at_random_moments(composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At least twelve kills, of runs with and without workers, of which at least one hits each phase."""
    draw, kills, rounds = random.Random(SEED), Counter[str](), itertools.count()
    attempt(composed(*VICTIM) | {"runs_dir": str(tmp_path / "none")}, kill_after=0.0)  # the server has its imports
    for overrides in (
        ("decoder=bahdanau", "checkpoint_interval=0.02"),
        ("decoder=luong_general_feeding", "checkpoint_interval=0.1", "loader.workers=2"),
    ):
        config = composed(*VICTIM, *overrides)
        whole = config | {"runs_dir": str(tmp_path / overrides[0])}
        _, seconds = attempt(whole)
        enough = kills.total() + KILLS / 2
        # On a busy machine chance may leave out a phase for long; five times as many kills are enough for any.
        while kills.total() < enough or (kills.total() < 5 * KILLS and not set(kills) >= PHASES):
            killed = config | {"runs_dir": str(tmp_path / f"killed{next(rounds)}")}
            directory, phases = kill_and_go_on(killed, draw, mean=seconds / 4)
            assert_same(directory, directory_of(whole))
            assert [path.name for path in directory.rglob(".*")] == [LOCK]
            kills += phases
    with capsys.disabled():
        print(f" [{kills.total()} kills: {dict(kills)}]", end="")
    assert set(kills) >= PHASES


def test_a_test_goes_on_where_it_was_killed(composed: Compose, tmp_path: Path) -> None:
    """What was decoded before the kill is not decoded again, and the records are the same."""
    config = composed(*VICTIM, "trainer.max_steps=3", "checkpoint_interval=0")
    attempt(config | {"runs_dir": str(tmp_path / "whole")})
    config["runs_dir"] = str(tmp_path / "killed")
    directory = directory_of(config)
    decoded: list[set[int]] = []
    for seconds in range(1, 40):
        was_killed, _ = attempt(config, kill_after=0.25 * seconds)
        if not was_killed:
            break
        if (directory / decoded_file(0, 1)).exists():
            decoded.append(set(read_checkpoint(directory / decoded_file(0, 1))["state_dict"]["records"]))
    assert decoded
    assert all(before <= after for before, after in itertools.pairwise(decoded))
    assert_same(directory, directory_of(config | {"runs_dir": str(tmp_path / "whole")}))


@pytest.mark.parametrize("start_method", ["fork", "forkserver"])
def test_workers_of_a_killed_run_do_not_live_on(composed: Compose, tmp_path: Path, start_method: str) -> None:
    config = composed(*VICTIM, "trainer.max_steps=100000", "loader.workers=2") | {"runs_dir": str(tmp_path)}
    process, log = begin(config, start_method=start_method)
    directory = directory_of(config)
    wait_until(lambda: (status := read_status(directory)) is not None and status.update > 0, seconds=90)
    assert len(_that_write_to(log)) >= 3
    process.kill()
    wait_until(lambda: not _that_write_to(log), seconds=90)


def _that_write_to(log: Path) -> set[int]:
    """Processes whose output goes there."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if os.readlink(path) == str(log):
                found.add(int(path.parts[2]))
        except OSError:
            continue
    return found
