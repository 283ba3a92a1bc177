"""Estimates how long runs will take, from finished runs of the same arm and data."""

from __future__ import annotations

import functools
import heapq
import statistics
from collections.abc import Sequence
from pathlib import Path

from attnspan.errors import InputError
from attnspan.files import read_json
from attnspan.runs.layout import SUMMARY
from attnspan.runs.status import PLATEAU


class RunTimes:
    """Times of the finished runs in ``<runs_dir>/<data>/<arm>/<run id>/``. Each summary is read once."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir
        self._times = functools.cache(_times_of)
        self.processors = set[str]()
        """Models of the processors on which the runs were made that :meth:`expected` has judged by."""

    def expected(self, *, data: str, arm: str, updates: int) -> float | None:
        """Seconds that a run of at most ``updates`` updates will take; None if none of this arm and data has finished.

        The median of the finished runs' times. Each is scaled by its number of updates, but for a run that ended at a
        plateau before so many: another seed reaches one too.
        """
        finished = self._times(self._runs_dir / data / arm)
        scaled = [
            seconds if not updates or not n or (plateau and n <= updates) else seconds * updates / n
            for seconds, n, plateau, _ in finished
        ]
        self.processors |= {processor for *_, processor in finished if processor}
        return statistics.median(scaled) if scaled else None


def makespan(seconds: Sequence[float], n_jobs: int) -> float:
    """Seconds until all jobs are done, if each starts in turn when one of ``n_jobs`` places is free."""
    places = [0.0] * max(1, n_jobs)
    for duration in seconds:
        heapq.heapreplace(places, places[0] + duration)
    return max(places)


def _times_of(directory: Path) -> list[tuple[float, int, bool, str]]:
    """Wall seconds and updates of the finished runs in ``directory``, whether a plateau ended them, the processor."""
    found = []
    for path in directory.glob(f"*/{SUMMARY}"):
        try:
            summary = read_json(path)
            plateau = summary.get("ended_by") == PLATEAU
            processor = str(summary.get("machine", {}).get("processor", ""))
            found.append((float(summary["wall_seconds"]), int(summary["updates"]), plateau, processor))
        except (InputError, KeyError, TypeError, ValueError, AttributeError):  # an estimate is not worth an error
            continue
    return found
