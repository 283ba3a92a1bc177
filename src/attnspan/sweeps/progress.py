"""Progress of one run or of a sweep: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from attnspan.runs.status import TRAINING, Status

LINE_INTERVAL = 10.0
"""Seconds between two plain lines about the same run."""


class ProgressDisplay:
    """A line for each run, and for a sweep of ``jobs`` runs, ``n_jobs`` at once, one with its remaining time."""

    def __init__(self, *, console: Console, jobs: int | None = None, n_jobs: int = 1) -> None:
        self._console = console
        self._jobs = jobs
        self._n_jobs = n_jobs
        self._live = console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[what]}"),
            _RemainingTime(),
            console=console,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, tuple[float, str, str]] = {}
        self._running: dict[str, Status] = {}
        self._expected: dict[str, float] = {}  # estimated seconds of each running run, in all
        self._durations: list[float] = []
        self._total = self._bars.add_task("sweep", total=jobs, what=f"0 of {jobs} runs", left=None) if jobs else None

    def __enter__(self) -> Self:
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._bars.stop()

    def update(self, name: str, status: Status) -> None:
        """Show the progress of the run ``name``."""
        self._running[name] = status
        if status.phase == TRAINING and status.remaining is not None:
            self._expected[name] = status.seconds + status.remaining
        what = describe(status)
        if self._live:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=None, what="", left=None)
            total = status.total or None
            self._bars.update(self._tasks[name], completed=status.done, total=total, what=what, left=_left(status))
            self._show_sweep()
            return
        before, phase, last = self._printed.get(name, (0.0, "", ""))
        if status.phase != phase or (what != last and time.monotonic() - before >= LINE_INTERVAL):
            self._printed[name] = (time.monotonic(), status.phase, what)
            left = f", {_left(status)}" if status.remaining is not None else ""
            self.log(f"{name}: {what}{left}")

    def finish(self, name: str, outcome: str, *, seconds: float | None = None) -> None:
        """Show how the run ``name`` ended. ``seconds`` is how long it took, None if it was skipped."""
        self._running.pop(name, None)
        self._expected.pop(name, None)
        if seconds is not None:
            self._durations.append(seconds)
        if name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))
        if self._total is not None:
            self._bars.advance(self._total)
            self._show_sweep()
        took = f" in {duration(seconds)}" if seconds is not None else ""
        self.log(f"{name}: {outcome}{took}{self._sweep_left()}")

    def log(self, line: str) -> None:
        """Print a line above the bars."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=not self._live)

    def _show_sweep(self) -> None:
        if self._total is not None:
            self._bars.update(self._total, what=f"{self._done()} of {self._jobs} runs", left=self._time_left())

    def _done(self) -> int:
        return 0 if self._total is None else int(self._bars.tasks[0].completed)

    def _estimate(self) -> float | None:
        """Seconds to the end of the sweep, from the times of finished runs and the remaining times of running ones."""
        assert self._jobs is not None
        known = self._durations + list(self._expected.values())
        if not known:
            return None
        typical = sum(known) / len(known)
        left = [max(0.0, self._expected.get(name, typical) - status.seconds) for name, status in self._running.items()]
        waiting = self._jobs - self._done() - len(self._running)
        return max(max(left, default=0.0), (sum(left) + waiting * typical) / self._n_jobs)

    def _time_left(self) -> str:
        estimate = self._estimate()
        return f"about {duration(estimate)} left" if estimate else ""

    def _sweep_left(self) -> str:
        if not self._jobs:
            return ""
        estimate = self._estimate() if self._done() < self._jobs else None
        left = f", about {duration(estimate)} left" if estimate else ""
        return f" ({self._done()} of {self._jobs} runs{left})"


class _RemainingTime(ProgressColumn):
    """The remaining time, as the run itself estimates it."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['left'] or '':>20}", style="progress.remaining")


def _left(status: Status) -> str:
    """The remaining time of a run's phase in words; empty if it is not known."""
    if status.remaining is None:
        return ""
    return f"{'at most ' if status.at_most else ''}{duration(status.remaining)} left"


def describe(status: Status) -> str:
    """What a run is doing, in a few words."""
    words = status.phase or status.state
    if status.total:
        unit = "update " if status.phase == TRAINING else ""
        words += f" {unit}{status.done}/{status.total}"
    if status.loss is not None and status.phase == TRAINING:
        words += f", loss {format_loss(status.loss)}"
    return words


def format_loss(loss: float) -> str:
    """Format nats per token; a loss that has exploded may have dozens of digits."""
    return f"{loss:.3f}" if loss < 1000 else f"{loss:.3g}"


def duration(seconds: float | None) -> str:
    """Format seconds as h:mm:ss or mm:ss; None is empty."""
    if seconds is None:
        return ""
    text = str(timedelta(seconds=round(seconds)))
    return text[2:] if text.startswith("0:") else text
