"""What is logged in training besides the loss: learning rate, gradient norm, throughput, memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer

from attnspan.data.pipeline.batches import Batch
from attnspan.training.callbacks.cost import peak_memory_mb


class TrainingMonitor(L.Callback):
    """Logs at every ``every``-th update.

    Learning rate and gradient norm (before clipping) go to all loggers. Throughput and memory depend on the machine and
    go to ``trackers`` only: ``metrics.csv`` must be the same however often a run was interrupted.

    Args:
        every: ``trainer.log_every_n_steps``, as for the loss.
        trackers: loggers for what depends on the machine.
    """

    def __init__(self, *, every: int, trackers: Sequence[Logger]) -> None:
        self._every = every
        self._trackers = trackers
        self._tokens = 0
        self._since = 0.0

    def on_train_start(self, *_: Any) -> None:
        """Start the clock."""
        self._tokens, self._since = 0, time.monotonic()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Log learning rate and gradient norm of the coming update."""
        if (trainer.global_step + 1) % self._every:
            return
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
        pl_module.log("train/gradient_norm", torch.linalg.vector_norm(norms))
        pl_module.log("train/learning_rate", optimizer.param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """Log throughput since the last time, and peak memory."""
        self._tokens += batch.whole_tokens
        if trainer.global_step % self._every:
            return
        now = time.monotonic()
        measured = {
            "machine/train_tokens_per_second": self._tokens / (now - self._since),
            "machine/peak_memory_mb": peak_memory_mb(),
        }
        for tracker in self._trackers:
            tracker.log_metrics(measured, step=trainer.global_step - 1)  # as Lightning counts
        self._tokens, self._since = 0, now

    def on_validation_end(self, *_: Any) -> None:
        """Restart the clock: validation is not training."""
        self._tokens, self._since = 0, time.monotonic()
