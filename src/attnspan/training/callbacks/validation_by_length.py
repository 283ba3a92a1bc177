"""Validation by length: teacher-forced loss and accuracy in bins, at every validation."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor

from attnspan.analysis.lengths.bins import Bins
from attnspan.data.pipeline.batches import Batch
from attnspan.data.tokenizer import PAD
from attnspan.models.source_size import source_lengths
from attnspan.training.lightning_module import ValidationOutput, reference_lengths


def column_labels(bins: Bins) -> list[str]:
    """The bins in names of columns, as in ``source_1-10``."""
    return [f"{bins.axis.side}_{label.replace('–', '-')}" for label in bins.labels]


def lengths_of(batch: Batch, side: str) -> Tensor:
    """[B]: tokens of the ``source`` (on the CPU) or ``target`` (on the device of the batch), without ``<eos>``."""
    return source_lengths(batch.source_lengths) if side == "source" else reference_lengths(batch.target_output)


class ValidationByLength(L.Callback):
    """Logs ``validation_loss/<side>_<lengths>`` and ``validation_accuracy/<side>_<lengths>`` for every bin.

    Sums stay on the device until the validation is over.

    Args:
        bins: of the length of either side in tokens; they hold every validation example.
    """

    def __init__(self, bins: Bins) -> None:
        self._side, self._labels = bins.axis.side, column_labels(bins)
        self._edges = torch.tensor(bins.edges[1:-1])
        self._sums = torch.empty(0)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Set the sums to zero: [3, bins] of loss, correct tokens, tokens."""
        self._edges = self._edges.to(pl_module.device)
        self._sums = torch.zeros(3, len(self._labels), dtype=torch.float64, device=pl_module.device)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """Add the batch."""
        assert isinstance(outputs, ValidationOutput)
        tokens = (batch.labels != PAD).sum(dim=1)
        into = torch.bucketize(lengths_of(batch, self._side).to(self._edges.device), self._edges)  # (edge, next edge]
        self._sums.index_add_(1, into, torch.stack([outputs.nll, outputs.correct.double(), tokens.double()]))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Log the sums of all processes; a bin without examples is left out."""
        sums: Tensor = trainer.strategy.reduce(self._sums, reduce_op="sum").cpu()
        for label, (loss, correct, tokens) in zip(self._labels, sums.T.tolist(), strict=True):
            if tokens:
                pl_module.log(f"validation_loss/{label}", loss / tokens, rank_zero_only=True)
                pl_module.log(f"validation_accuracy/{label}", correct / tokens, rank_zero_only=True)
