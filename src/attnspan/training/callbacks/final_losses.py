"""The losses at both ends of training, which tell a model that has learned from one whose loss has exploded."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor


class FinalLosses(L.Callback):
    """Keeps the losses of the first and of the last update and of the last validation; they are part of a checkpoint.

    The loss of an update is a tensor until a validation or a checkpoint asks for it, so that no update waits for it.
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None
        self._last: Tensor | None = None
        self.first: float | None = None
        """Nats per target token, of the first update, before it; None while there is no validation."""
        self.training: float | None = None
        """Nats per target token, of the last update before the last validation; None while there is none."""
        self.validation: float | None = None
        """Nats per target token, of the last validation; infinite in place of NaN; None while there is none."""

    def state_dict(self) -> dict[str, Any]:
        """What resumes with the model."""
        kept = {name: None if loss is None else float(loss) for name, loss in self._kept().items()}
        return {**kept, "first": self.first, "training": self.training, "validation": self.validation}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume."""
        self.first, self.training, self.validation = (state_dict[key] for key in ("first", "training", "validation"))
        kept = (state_dict[name] for name in self._kept())
        self._first, self._last = (None if loss is None else torch.tensor(loss) for loss in kept)

    def _kept(self) -> dict[str, Tensor | None]:
        return {"first_update": self._first, "last_update": self._last}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        """Take the loss of the update, of this process's share of the batch; of the first update the mean of all.

        A checkpoint has what rank 0 kept, and before the next validation comes another last update, but no other first.
        """
        self._last = outputs["loss"]
        if self._first is None:
            self._first = trainer.strategy.reduce(self._last.detach().float(), reduce_op="mean")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the loss of the validation, and the mean loss of all processes in the last update."""
        validation = float(trainer.callback_metrics["validation/loss"])
        self.validation = math.inf if math.isnan(validation) else validation
        if self._first is not None and self._last is not None:
            both = torch.stack([self._first, self._last]).to(pl_module.device, torch.float32)
            self.first, self.training = trainer.strategy.reduce(both, reduce_op="mean").tolist()
