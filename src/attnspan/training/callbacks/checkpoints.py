"""Checkpoints: the best weights, and all that a run needs to resume, bit for bit, where it was stopped.

``best.ckpt`` holds the weights that did best on validation by the checkpoint selection metric. ``last.ckpt`` holds
weights, optimizer, learning-rate schedule, position in the data, generators, ``metrics.csv``, counters and the best
weights between two updates, and ``previous.ckpt`` the same some time earlier: each alone is enough to resume from. All
are tensors and plain types, written whole or not at all.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from attnspan.data.pipeline.batches import Batch
from attnspan.errors import Interrupted
from attnspan.files import write_atomically
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.runs.checkpoint_file import GIVES_TOKENS, checkpoint_bytes
from attnspan.runs.layout import BEST, LAST
from attnspan.training.distributed import gather, rank
from attnspan.training.lightning_loops import is_followed_by_validation, rewind_fetched_batch
from attnspan.training.random_state import random_state, set_random_state
from attnspan.training.signals import Stop


class Checkpoints(Checkpoint):
    """Writes the checkpoints, and stops the run between two updates when it is asked to.

    A checkpoint is better than another if its ``validation/<selection_metric>`` is lower, or equal with a lower loss:
    of a few hundred sequences, the same number is often wrong at several validations.

    Args:
        directory: of the run.
        config: of the run. ``selection_metric`` is a validation metric of which less is better; ``last.ckpt``
            is written again after ``checkpoint_interval`` seconds, after every validation, and before the update that a
            validation follows.
        stop: says whether the run is asked to stop.
        limit: of a hypothesis; ``best.ckpt`` keeps it.
        gives_tokens: the data gives target tokens to the decoder; ``best.ckpt`` keeps that, too.
    """

    def __init__(
        self, *, directory: Path, config: dict[str, Any], stop: Stop, limit: LengthLimit, gives_tokens: bool
    ) -> None:
        self._directory = directory
        # They come from data that may be gone later.
        self._of_data = {"length_limit": asdict(limit)} | ({GIVES_TOKENS: True} if gives_tokens else {})
        self._metrics = (f"validation/{config['selection_metric']}", "validation/loss")
        self._interval = config["checkpoint_interval"]
        self._stop = stop
        self.complete = False
        """Whether training is over, so that only the test is left."""
        self.best_update: int | None = None
        self.best = (math.inf, math.inf)
        """``selection_metric`` and loss of the best checkpoint."""
        self._best_file = torch.empty(0, dtype=torch.uint8)  # no copy of it on the disk may be the only one
        self._saved_update = 0
        self._saved_at = 0.0
        self._validated = False
        self._random_state: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """What resumes with the model."""
        return {
            "complete": self.complete,
            "best_update": self.best_update,
            "best": self.best,
            "best_file": self._best_file,
            "random_states": gather(random_state()),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume; the generators follow at the start of the first batch, which is where they were saved.

        A process that did not exist when they were saved, because the run resumes with more of them, keeps its own.
        """
        self.complete = state_dict["complete"]
        self.best_update, self.best, self._best_file = (state_dict[key] for key in ("best_update", "best", "best_file"))
        self._random_state = dict(enumerate(state_dict["random_states"])).get(rank())

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Start the clock."""
        self._saved_update, self._saved_at = trainer.global_step, time.monotonic()
        self._stop.listen()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Save if it is due. The last update, its log and its validation are done, and the next has not begun.

        Raises:
            Interrupted: the run was asked to stop.
        """
        if self._random_state is not None:
            set_random_state(self._random_state)
            self._random_state = None
        if batch_idx % trainer.accumulate_grad_batches:
            return  # half an update: its gradients would be lost
        number = self._stop.number
        due = number is not None or self._validated or time.monotonic() - self._saved_at >= self._interval
        due |= is_followed_by_validation(trainer)  # a validation may be long, and nothing can be saved in it
        due, number = trainer.strategy.broadcast((due, number))  # every process does what rank 0 does
        if due and trainer.global_step > self._saved_update:
            self._save(trainer)
        if number is not None:
            raise Interrupted(number)

    def on_validation_batch_start(self, *_: Any) -> None:
        """Stop in the middle of a validation, however long; the run resumes before the update that led to it.

        Raises:
            Interrupted: the run was asked to stop.
        """
        self._stop.check()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Keep the weights if none were better."""
        self._validated = True
        value, loss = (_number(trainer.callback_metrics[name]) for name in self._metrics)
        if self.best_update is not None and not (value, loss) < self.best:
            return
        self.best_update, self.best = trainer.global_step, (value, loss)
        if trainer.is_global_zero:
            content = checkpoint_bytes(
                {
                    "state_dict": pl_module.state_dict(),
                    "global_step": self.best_update,
                    **self._of_data,
                }
            )
            write_atomically(self._directory / BEST, content)
            self._best_file = torch.frombuffer(content, dtype=torch.uint8)

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Save that only the test is left to do."""
        self.complete = True
        self._save(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Do not count the batch that Lightning has just fetched."""
        if not self.complete:
            rewind_fetched_batch(trainer, checkpoint)

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self._directory / LAST)
        self._saved_update, self._saved_at, self._validated = trainer.global_step, time.monotonic(), False


def _number(value: Tensor) -> float:
    """The value; infinity in place of NaN, which would compare as better than everything."""
    return math.inf if math.isnan(value) else float(value)
