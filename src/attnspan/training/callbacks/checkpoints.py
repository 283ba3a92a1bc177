"""Checkpoints: the best model, and all that a run needs to go on, bit for bit, where it was stopped.

``best.ckpt`` holds the weights that did best on validation, by the criterion that the run chose. ``last.ckpt`` holds
weights, optimizer, schedule, place in the data, generators, curves, counters and the best weights between two updates,
and ``previous.ckpt`` the same a while before: each alone is enough to go on. ``tested-*.ckpt`` hold the records of the
test so far, one a process. All are tensors and plain types, written whole or not at all.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from attnspan.data.pipeline.batches import Batch
from attnspan.errors import Interrupted
from attnspan.files import write_whole
from attnspan.runs.checkpoint_file import DamagedError, checkpoint_bytes, read_checkpoint
from attnspan.runs.layout import BEST, LAST, decoded_file
from attnspan.training.callbacks.cost import Cost
from attnspan.training.callbacks.recorder import Recorder
from attnspan.training.distributed import gather, rank
from attnspan.training.metrics_csv import Curves
from attnspan.training.signals import Stop


class Checkpoints(Checkpoint):
    """Writes the checkpoints, and stops the run between two updates when it is asked to.

    A checkpoint is better than another if its ``validation/<selection_metric>`` is lower, or the same with a lower
    loss: of some hundred sequences the same number is wrong at many a validation.

    Args:
        directory: of the run.
        selection_metric: ``loss``, or another of the validation's measures that is best where it is least.
        patience: ends the training after so many validations without a better checkpoint; None for never.
        every: seconds after which ``last.ckpt`` is written anew; it is also written after every validation, and before
            the update that a validation follows. In the test, those after which ``tested-*.ckpt`` are.
        curves: what was logged, which must go on with the rest.
        stop: tells whether to stop.
        recorder: has the records of the test.
        cost: has the seconds that they took.
        ranks: processes of the run.
    """

    def __init__(
        self,
        *,
        directory: Path,
        selection_metric: str,
        patience: int | None,
        every: float,
        curves: Curves,
        stop: Stop,
        recorder: Recorder,
        cost: Cost,
        ranks: int = 1,
    ) -> None:
        self._ranks = ranks
        self._directory = directory
        self._criteria = (f"validation/{selection_metric}", "validation/loss")
        self._patience = patience
        self._every = every
        self._curves = curves
        self._stop = stop
        self._recorder = recorder
        self._cost = cost
        self.complete = False
        self.best_update: int | None = None
        self.best = (math.inf, math.inf)
        """``selection_metric`` and loss of the best checkpoint."""
        self._best_file = torch.empty(0, dtype=torch.uint8)  # no copy of it on the disk can be the only one
        self._without_better = 0
        self._saved_update = 0
        self._saved_at = 0.0
        self._validated = False
        self._generators: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """What is to go on with the model."""
        return {
            "complete": self.complete,
            "best_update": self.best_update,
            "best": self.best,
            "best_file": self._best_file,
            "without_better": self._without_better,
            "generators": gather(_generators()),
            "curves": self._curves.content(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with ``state``; the generators follow at the first batch, where they were saved too.

        A process that was not there when they were saved, because the run goes on with more of them, keeps its own.
        """
        self.complete = state["complete"]
        self.best_update, self.best, self._best_file = state["best_update"], state["best"], state["best_file"]
        self._without_better = state["without_better"]
        self._generators = dict(enumerate(state["generators"])).get(rank())
        self._curves.put_back(state["curves"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._saved_update, self._saved_at = trainer.global_step, time.monotonic()
        self._stop.listen()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Save, if it is time to. The last update, its log and its validation are done, and the next has not begun.

        Raises:
            Interrupted: the run was asked to stop.
        """
        if self._generators is not None:
            _set_generators(self._generators)
            self._generators = None
        if batch_idx % trainer.accumulate_grad_batches:
            return  # half an update: its gradients would be lost
        number = self._stop.number
        due = number is not None or self._validated or time.monotonic() - self._saved_at >= self._every
        due |= _is_followed_by_validation(trainer)  # which may be long, and nothing can be saved in it
        due, number = trainer.strategy.broadcast((due, number))  # every process does as rank 0 does
        if due and trainer.global_step > self._saved_update:
            self._save(trainer)
        if number is not None:
            raise Interrupted(number)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Do not let a long validation keep the run from stopping. It goes on before the update that led to it.

        Raises:
            Interrupted: the run was asked to stop.
        """
        self._stop.check()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the weights if none were better; end the training if none have been for too long."""
        self._validated = True
        value, loss = (_number(trainer.callback_metrics[name]) for name in self._criteria)
        if self.best_update is not None and not (value, loss) < self.best:
            self._without_better += 1
            trainer.should_stop |= self._without_better == self._patience
            return
        self.best_update, self.best, self._without_better = trainer.global_step, (value, loss), 0
        if trainer.is_global_zero:
            content = checkpoint_bytes({"state_dict": pl_module.state_dict(), "global_step": self.best_update})
            write_whole(self._directory / BEST, content)
            self._best_file = torch.frombuffer(content, dtype=torch.uint8)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save that only the test is left to do."""
        self.complete = True
        self._save(trainer)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen again, and start the clock."""
        self._stop.listen()
        self._saved_at = time.monotonic()

    def on_test_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Save what is decoded, if it is time to; each of several processes saves its part.

        Raises:
            Interrupted: the run was asked to stop.
        """
        due = self._stop.number is not None or time.monotonic() - self._saved_at >= self._every
        if due and self._recorder.has_records:
            content = {"state_dict": {**self._recorder.decoded(), "test_seconds": self._cost.test_seconds}}
            write_whole(self._directory / decoded_file(rank(), self._ranks), checkpoint_bytes(content))
            self._saved_at = time.monotonic()
        self._stop.check()

    def go_on_testing(self, say: Callable[[str], None]) -> set[int]:
        """Take up what was decoded before the run was interrupted, if that was kept and is whole.

        A run that goes on with another number of processes begins its test anew.

        Returns:
            Rows of the test split that are decoded, by this process or another.

        Raises:
            InputError: it cannot be read now.
        """
        rows: set[int] = set()
        for each in range(self._ranks):
            path = self._directory / decoded_file(each, self._ranks)
            if not path.exists():
                continue
            try:
                state = read_checkpoint(path)["state_dict"]
                if each == rank():
                    self._recorder.go_on_with(state)
                    self._cost.test_seconds = state["test_seconds"]
                rows.update(state["records"])
            except (DamagedError, KeyError, TypeError) as error:
                why = str(error) if isinstance(error, DamagedError) else f"{path}: of another version"
                say(f"{why}; the test begins anew")
        return rows

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take Lightning's counters back to before the batch that it has just fetched.

        Lightning has no hook between two updates: when the next batch starts, that batch already counts as fetched.
        """
        if self.complete:
            return
        loops = checkpoint["loops"]["fit_loop"]
        progress = loops["epoch_loop.batch_progress"]
        progress["is_last_batch"] = False
        progress["total"]["ready"] -= 1
        progress["current"]["ready"] -= 1
        position = {"epoch": trainer.current_epoch, "batch": progress["current"]["ready"]}
        loops["state_dict"]["combined_loader"] = [position]
        if progress["total"]["ready"] % trainer.val_check_batch == 0:
            # Lightning will find that a validation is due, see that it was done, and count the update once more.
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self._directory / LAST)
        self._saved_update, self._saved_at, self._validated = trainer.global_step, time.monotonic(), False


def _is_followed_by_validation(trainer: L.Trainer) -> bool:
    """Whether a validation comes after the update that begins with the batch just fetched."""
    every = trainer.val_check_batch
    assert every is not None
    return -trainer.fit_loop.epoch_loop.batch_progress.total.ready % every < trainer.accumulate_grad_batches


def _number(value: Tensor) -> float:
    """The value, and infinity for one that is not a number: it is worse than any other."""
    return math.inf if math.isnan(value) else float(value)


def _generators() -> dict[str, Any]:
    """States of all global random generators, as plain things."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": [str(kind), keys.tolist(), *(number for number in rest)],  # type: ignore[union-attr]
    }


def _set_generators(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
