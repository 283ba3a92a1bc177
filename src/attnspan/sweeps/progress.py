"""Progress of one run or of a sweep: one table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from attnspan.runs.status import TRAINING, VALIDATING, Status

LINE_INTERVAL, LONGEST_INTERVAL = 10.0, 600.0
"""Seconds between two plain lines about the same run: a tenth of its time so far, within these."""
_REFRESHES = 2
"""Of the table, a second."""
_ROOM_FOR_MESSAGES = 60
"""Columns for the names of runs from which on there is room for their last messages, too."""


class ProgressDisplay:
    """A row for each run, and for a sweep of ``jobs`` runs, ``n_jobs`` at once, a line with its remaining time."""

    def __init__(self, *, console: Console, jobs: int | None = None, n_jobs: int = 1) -> None:
        self._console = console
        self._jobs = jobs
        self._n_jobs = n_jobs
        self._live = console.is_terminal
        self._printed: dict[str, tuple[float, str, str]] = {}
        self._running: dict[str, Status] = {}
        self._expected: dict[str, float] = {}  # estimated seconds of each running run, in all
        self._durations: list[float] = []
        self._done = 0
        self._screen = Live(console=console, get_renderable=self._render, refresh_per_second=_REFRESHES)

    def __enter__(self) -> Self:
        if self._live:
            self._screen.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._running.clear()  # of the table only the sweep's line stays
        if self._live:
            self._screen.stop()

    def update(self, name: str, status: Status) -> None:
        """Show the progress of the run ``name``."""
        self._running[name] = status
        if status.phase == TRAINING and status.remaining is not None:
            self._expected[name] = status.seconds + status.remaining
        if self._live:
            return  # the table refreshes itself
        phase = TRAINING if status.phase == VALIDATING else status.phase  # which alternate all the time
        before, last_phase, last = self._printed.get(name, (0.0, "", ""))
        what = describe(status)
        interval = min(max(LINE_INTERVAL, status.seconds / 10), LONGEST_INTERVAL)
        if phase != last_phase or (what != last and time.monotonic() - before >= interval):
            self._printed[name] = (time.monotonic(), phase, what)
            left = f", {_left(status)} left" if status.remaining is not None else ""
            self.log(f"{name}: {what}{left}")

    def finish(self, name: str, outcome: str, *, seconds: float | None = None) -> None:
        """Show how the run ``name`` ended. ``seconds`` is how long it took, None if it was skipped."""
        self._running.pop(name, None)
        self._expected.pop(name, None)
        self._done += 1
        if seconds is not None:
            self._durations.append(seconds)
        took = f" in {duration(seconds)}" if seconds is not None else ""
        self.log(f"{name}: {outcome}{took}{self._sweep_left()}")

    def log(self, line: str) -> None:
        """Print a line above the table."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=not self._live)

    def _render(self) -> Group:
        """The sweep's line and the table of the running runs."""
        parts: list[Text | Table] = []
        if self._jobs:
            estimate = self._estimate() if self._done < self._jobs else None
            left = f", about {duration(estimate)} left" if estimate else ""
            parts.append(Text(f"{self._done} of {self._jobs} runs{left}", style="bold"))
        if self._running:
            parts.append(self._table())
        return Group(*parts)

    def _table(self) -> Table:
        running = list(self._running.items())  # another thread may add one
        rows = [
            [
                _doing(status),
                format_loss(status.loss),
                format_loss(status.validation),
                "" if status.speed is None else f"{status.speed:.3g}",
                "" if status.remaining is None else f"{'≤ ' if status.at_most else ''}{duration(status.remaining)}",
            ]
            for _, status in running
        ]
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        names = ("", "loss", "valid.", "upd/s", "left")
        widths = [max(len(name), *(len(row[at]) for row in rows)) for at, name in enumerate(names)]
        room = self._console.width - sum(widths) - 2 * (len(names) + 1)
        messages = [status.message or "" for _, status in running] if room >= _ROOM_FOR_MESSAGES else []
        label = min(max(len(name) for name, _ in running), room // 2 if any(messages) else room)
        table.add_column("run", no_wrap=True, overflow="ellipsis", width=max(label, 3))
        for name, width in zip(names, widths, strict=True):
            table.add_column(name, no_wrap=True, justify="right" if name else "left", width=width)
        if any(messages):
            table.add_column("last message", no_wrap=True, overflow="ellipsis", width=room - label - 2)
        for at, (name, _) in enumerate(running):
            message = messages[at : at + 1] if any(messages) else []
            table.add_row(*map(Text, (name, *rows[at], *message)))
        return table

    def _estimate(self) -> float | None:
        """Seconds to the end of the sweep, from the times of finished runs and the remaining times of running ones."""
        assert self._jobs is not None
        known, running = self._durations + list(self._expected.values()), list(self._running.items())
        if not known:
            return None
        typical = sum(known) / len(known)
        left = [max(0.0, self._expected.get(name, typical) - status.seconds) for name, status in running]
        waiting = self._jobs - self._done - len(running)
        return max(max(left, default=0.0), (sum(left) + waiting * typical) / self._n_jobs)

    def _sweep_left(self) -> str:
        if not self._jobs:
            return ""
        estimate = self._estimate() if self._done < self._jobs else None
        left = f", about {duration(estimate)} left" if estimate else ""
        return f" ({self._done} of {self._jobs} runs{left})"


def _left(status: Status) -> str:
    """The remaining time of a run's phase in words; empty if it is not known."""
    if status.remaining is None:
        return ""
    return f"{'at most ' if status.at_most else ''}{duration(status.remaining)}"


def _doing(status: Status) -> str:
    """What a run is doing, and how far it is."""
    words = status.phase or status.state
    return f"{words} {status.done}/{status.total}" if status.total else words


def describe(status: Status) -> str:
    """What a run is doing, in a few words."""
    words = status.phase or status.state
    if status.total:
        unit = "update " if status.phase == TRAINING else ""
        words += f" {unit}{status.done}/{status.total}"
    if status.loss is not None and status.phase == TRAINING:
        words += f", loss {format_loss(status.loss)}"
    if status.validation is not None and status.phase == TRAINING:
        words += f", validation {format_loss(status.validation)}"
    return words


def format_loss(loss: float | None) -> str:
    """Format nats per token; a loss that has exploded may have dozens of digits. None is empty."""
    return "" if loss is None else f"{loss:.3f}" if loss < 1000 else f"{loss:.3g}"


def duration(seconds: float | None) -> str:
    """Format seconds as h:mm:ss or mm:ss; None is empty."""
    if seconds is None:
        return ""
    text = str(timedelta(seconds=round(seconds)))
    return text[2:] if text.startswith("0:") else text
