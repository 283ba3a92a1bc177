"""Progress without a terminal is plain lines, with the time left; the estimate is arithmetic that one can follow."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from rich.console import Console

from attnspan.runs.status import TESTING, TRAINING, VALIDATING, Status
from attnspan.sweeps import progress
from attnspan.sweeps.progress import ProgressDisplay, duration


def display(jobs: int | None, n_jobs: int = 1) -> tuple[ProgressDisplay, io.StringIO]:
    out = io.StringIO()
    return ProgressDisplay(console=Console(file=out, width=100), jobs=jobs, n_jobs=n_jobs), out


def training(done: int, seconds: float, remaining: float) -> Status:
    return Status(phase=TRAINING, done=done, total=100, loss=1.25, seconds=seconds, remaining=remaining)


def test_a_line_each_state_and_not_each_update() -> None:
    shown, out = display(None)
    with shown:
        for done in range(1, 50):
            shown.update("plain seed 1", training(done, done, 100 - done))
        shown.update("plain seed 1", Status(phase=TESTING, done=1, total=4, remaining=3.0))
    assert out.getvalue().splitlines() == [
        "plain seed 1: training update 1/100, loss 1.250, 01:39 left",
        "plain seed 1: testing 1/4, 00:03 left",
    ]


def test_the_sweeps_time_left() -> None:
    """Four runs, two at a time: a has 30 s left of 100, b 60 s of 120, two wait for 110 s each: (30+60+2*110)/2."""
    shown, out = display(5, n_jobs=2)
    shown.finish("skipped", "finished before")
    shown.update("a", training(70, 70, 30))
    shown.update("b", training(50, 60, 60))
    assert shown._estimate() == (30 + 60 + 2 * 110) / 2
    shown.update("a", Status(phase=TESTING, done=1, total=4, seconds=80))
    assert shown._estimate() == (20 + 60 + 2 * 110) / 2
    shown.finish("a", "finished", seconds=104.0)
    assert "a: finished in 01:44 (2 of 5 runs, about" in out.getvalue()


def test_the_last_runs_bound_the_estimate() -> None:
    """Nothing waits: what is left is what the slowest has left, however many could run beside it."""
    shown, _ = display(1, n_jobs=4)
    shown.update("a", training(50, 50, 50))
    assert shown._estimate() == 50


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 61, 3599.7, 3725)] == ["00:00", "01:01", "1:00:00", "1:02:05"]


def test_validations_between_updates_make_no_lines() -> None:
    shown, out = display(None)
    with shown:
        for done in range(1, 50):
            shown.update("plain seed 1", training(done, done, 100 - done))
            shown.update("plain seed 1", Status(phase=VALIDATING, done=1, total=4, seconds=done))
    assert len(out.getvalue().splitlines()) == 1


def test_lines_come_more_seldom_the_longer_a_run_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 10 s in the first 100 s, then after a tenth of the time so far, and every 10 minutes at the least."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown, out = display(None)
    with shown:
        for second in range(1, 20_000):
            clock[0] = second
            shown.update("plain seed 1", Status(phase=TRAINING, done=second, total=20_000, seconds=second))
    seconds = [int(line.split("update ")[1].split("/")[0]) for line in out.getvalue().splitlines()]
    gaps = {at: after - at for at, after in pairwise(seconds)}
    assert all(gap == 10 for at, gap in gaps.items() if at < 90)
    assert all(at / 10 <= gap <= at / 10 + 0.12 * at + 2 for at, gap in gaps.items() if 110 < at < 5000)
    assert all(gap == 600 for at, gap in gaps.items() if at > 6000)


def test_a_terminal_of_80_columns_shows_one_table() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=80)
    long = "luong_general_feeding seed 1 model.hidden_size=128"
    shown = ProgressDisplay(console=screen, jobs=12, n_jobs=2)
    busy = {"done": 1400, "total": 20_000, "loss": 1.234, "validation": 1.4, "speed": 38.12, "seconds": 30.0}
    shown.update(long, Status(phase=TRAINING, remaining=754.0, at_most=True, message="a remark", **busy))
    shown.update("plain seed 2", Status(phase=VALIDATING, done=3, total=20))
    screen.print(shown._render())
    head, names, first, second = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
    whole = 754 + 30  # seconds of a run, as far as is known
    assert head.rstrip() == f"0 of 12 runs, about {duration((754 + 11 * whole) / 2)} left"
    assert names.split() == ["run", "loss", "valid.", "upd/s", "left"]
    assert first.startswith("luong_general_feeding s")
    assert first.split("…")[1].split() == ["training", "1400/20000", "1.234", "1.400", "38.1", "≤", "12:34"]
    assert second.split() == ["plain", "seed", "2", "validating", "3/20"]
    assert max(map(len, (head, names, first, second))) <= 80


def test_a_wide_terminal_has_the_last_message() -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=130)
    shown = ProgressDisplay(console=screen, jobs=1)
    shown.update("plain seed 2", Status(phase=TRAINING, message="W&B: no key, so this run is offline"))
    screen.print(shown._render())
    assert "W&B: no key, so this run is offline" in screen.file.getvalue()  # type: ignore[attr-defined]


def test_the_last_line_of_a_sweep_counts_every_run() -> None:
    """In a terminal the line of the sweep stays when the table is gone."""
    screen = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=100)
    with ProgressDisplay(console=screen, jobs=2, n_jobs=2) as shown:
        shown.update("a", Status(phase=TRAINING, done=1, total=2))
        shown.finish("a", "finished", seconds=1.0)
        shown.finish("b", "finished before, skipped")
    *_, last = screen.file.getvalue().split("\r")  # type: ignore[attr-defined]
    assert "2 of 2 runs" in last
