"""Reports the progress of a run, at most once a second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import lightning as L

from attnspan.data.pipeline.batches import Batch
from attnspan.errors import NotFiniteError
from attnspan.runs.status import RUNNING, TESTING, TRAINING, VALIDATING, Status
from attnspan.runs.summary import AGAINST_EXPLOSION
from attnspan.training.callbacks.plateau import Plateau


class ProgressReporter(L.Callback):
    """Reports phase, updates, loss and time left.

    The loss is copied to the CPU only for a report, so that a GPU does not wait at every update.

    Args:
        report: takes the status.
        began: when the run began, :func:`time.monotonic`.
        plateau: knows when training will end, once that is decided; None where nothing is trained.
    """

    EVERY = 1.0
    """Seconds between two reports."""

    def __init__(self, *, report: Callable[[Status], None], began: float, plateau: Plateau | None = None) -> None:
        self._report = report
        self._began = began
        self._plateau = plateau
        self._last = -math.inf
        self._start = 0.0
        self._before = 0

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Start the clock that estimates the time left."""
        self._start, self._before = time.monotonic(), trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Report the update and its loss.

        Raises:
            NotFiniteError: the loss is not a number any more.
        """
        if not self._due(trainer, final=trainer.global_step == self._updates(trainer)):
            return
        loss = float(trainer.callback_metrics["train/loss"])
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss is {loss} at update {trainer.global_step}; {AGAINST_EXPLOSION} may help")
        self._send(trainer, TRAINING, trainer.global_step, self._updates(trainer), since=self._start, loss=loss)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        """Report the validation batches done."""
        if self._due(trainer):
            self._send(trainer, VALIDATING, batch_idx + 1, int(sum(trainer.num_val_batches)), since=None)

    def on_test_start(self, *_: Any) -> None:
        """Restart the clock."""
        self._start, self._before, self._last = time.monotonic(), 0, -math.inf

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        """Report the test batches done."""
        if self._due(trainer):
            self._send(trainer, TESTING, batch_idx + 1, int(sum(trainer.num_test_batches)), since=self._start)

    def _updates(self, trainer: L.Trainer) -> int:
        """Updates of the whole training, or the most that they can become."""
        return (self._plateau and self._plateau.ends_at) or int(trainer.max_steps)

    def _due(self, trainer: L.Trainer, *, final: bool = False) -> bool:
        return trainer.is_global_zero and (final or time.monotonic() - self._last >= self.EVERY)

    def _send(
        self, trainer: L.Trainer, phase: str, done: int, total: int, *, since: float | None, loss: float | None = None
    ) -> None:
        self._last = time.monotonic()
        now_done = done - self._before  # not counting what was done before an interruption
        speed = now_done / (self._last - since) if since is not None and now_done and self._last > since else None
        validation = trainer.callback_metrics.get("validation/loss")
        self._report(
            Status(
                state=RUNNING,
                phase=phase,
                done=done,
                total=total,
                update=trainer.global_step,
                updates=self._updates(trainer),
                loss=loss,
                seconds=self._last - self._began,
                validation=None if validation is None else float(validation),
                speed=speed if phase == TRAINING else None,
                remaining=(total - done) / speed if speed else None,
                at_most=phase == TRAINING and self._plateau is not None and self._plateau.may_end_earlier,
            )
        )
