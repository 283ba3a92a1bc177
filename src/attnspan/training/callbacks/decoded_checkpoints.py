"""Checkpoints of the test: decoding it may take minutes, and what is decoded is not decoded again.

``tested-*.ckpt`` hold the records of the test so far, one file a process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L

from attnspan.files import write_atomically
from attnspan.runs.checkpoint_file import DamagedError, checkpoint_bytes, read_checkpoint
from attnspan.runs.layout import decoded_file
from attnspan.training.callbacks.cost import Cost
from attnspan.training.callbacks.recorder import Recorder
from attnspan.training.distributed import rank
from attnspan.training.signals import Stop


class DecodedCheckpoints(L.Callback):
    """Writes the records of the test so far, and stops the run between two batches when it is asked to.

    Args:
        directory: of the run.
        interval: seconds between two writes.
        ranks: processes of the run.
        stop: says whether the run is asked to stop.
        recorder: has the records.
        cost: has the seconds that they took.
    """

    def __init__(
        self, *, directory: Path, interval: float, ranks: int, stop: Stop, recorder: Recorder, cost: Cost
    ) -> None:
        self._directory, self._ranks, self._stop = directory, ranks, stop
        self._interval = interval
        self._recorder = recorder
        self._cost = cost
        self._saved_at = 0.0

    def on_test_start(self, *_: Any) -> None:
        """Listen for signals again, and start the clock."""
        self._stop.listen()
        self._saved_at = time.monotonic()

    def on_test_batch_start(self, *_: Any) -> None:
        """Save what is decoded if it is due; each of several processes saves its part.

        Raises:
            Interrupted: the run was asked to stop.
        """
        due = self._stop.number is not None or time.monotonic() - self._saved_at >= self._interval
        if due and self._recorder.has_records:
            content = {"state_dict": {**self._recorder.decoded(), "test_seconds": self._cost.test_seconds}}
            write_atomically(self._directory / decoded_file(rank(), self._ranks), checkpoint_bytes(content))
            self._saved_at = time.monotonic()
        self._stop.check()

    def resume(self, log: Callable[[str], None]) -> set[int]:
        """Take over what was decoded before the run was interrupted, if that was kept and is whole.

        A run that resumes with another number of processes starts its test again.

        Returns:
            Rows of the test split that are decoded, by this process or another.

        Raises:
            InputError: it cannot be read now.
        """
        rows: set[int] = set()
        for number in range(self._ranks):
            path = self._directory / decoded_file(number, self._ranks)
            if not path.exists():
                continue
            try:
                state = read_checkpoint(path)["state_dict"]
                if number == rank():
                    self._recorder.resume(state)
                    self._cost.test_seconds = state["test_seconds"]
                rows.update(state["records"])
            except (DamagedError, KeyError, TypeError) as error:
                why = str(error) if isinstance(error, DamagedError) else f"{path}: of another version"
                log(f"{why}; the test starts again")
        return rows
