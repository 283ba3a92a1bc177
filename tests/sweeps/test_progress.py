"""Progress without a terminal is plain lines, with the time left; the estimate is arithmetic that one can follow."""

from __future__ import annotations

import io

from rich.console import Console

from attnspan.runs.status import TESTING, TRAINING, Status
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


def test_the_last_line_of_a_sweep_counts_every_run() -> None:
    """In a terminal the line of the sweep stays when the bars are gone."""
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    with ProgressDisplay(console=screen, jobs=2, n_jobs=2) as display:
        display.update("a", Status(phase=TRAINING, done=1, total=2))
        display.finish("a", "finished", seconds=1.0)
        display.finish("b", "finished before, skipped")
        assert display._total is not None
        assert display._bars.tasks[0].fields["what"] == "2 of 2 runs"
