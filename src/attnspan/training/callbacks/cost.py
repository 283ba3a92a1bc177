"""What a run costs: tokens, seconds, parameters, memory."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning as L
import torch

from attnspan.data.pipeline.batches import Batch
from attnspan.training.lightning_module import Seq2SeqModule


class Cost(L.Callback):
    """Counts examples, target tokens and seconds, over all attempts of a run.

    Args:
        began: when this attempt began, :func:`time.monotonic`.
    """

    def __init__(self, *, began: float) -> None:
        self._began = began
        self.train_examples = 0
        self.train_tokens = 0
        self.train_seconds = 0.0
        self.validation_seconds = 0.0
        self.test_seconds = 0.0
        self._start = 0.0
        self._validation_start = 0.0

    @property
    def wall_seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def state_dict(self) -> dict[str, Any]:
        """All that was counted so far."""
        self._read_clock()
        names = ("train_examples", "train_tokens", "train_seconds", "validation_seconds", "wall_seconds")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.train_examples = state["train_examples"]
        self.train_tokens = state["train_tokens"]
        self.train_seconds = state["train_seconds"]
        self.validation_seconds = state["validation_seconds"]
        self._began -= state["wall_seconds"]

    def on_train_start(self, *_: Any) -> None:
        """Start the clock where it was stopped."""
        self._start = time.monotonic() - self.train_seconds - self.validation_seconds

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """Count the batch."""
        self.train_examples += batch.whole_examples
        self.train_tokens += batch.whole_tokens

    def on_validation_start(self, *_: Any) -> None:
        """Start the clock."""
        self._validation_start = time.monotonic()

    def on_validation_end(self, *_: Any) -> None:
        """Stop the clock."""
        self.validation_seconds += time.monotonic() - self._validation_start

    def on_train_end(self, *_: Any) -> None:
        """Stop the clock."""
        self._read_clock()

    def _read_clock(self) -> None:
        self.train_seconds = time.monotonic() - self._start - self.validation_seconds  # validation is not training

    def on_test_start(self, *_: Any) -> None:
        """Start the clock where it was stopped."""
        self._start = time.monotonic() - self.test_seconds

    def on_test_batch_end(self, *_: Any) -> None:
        """Read the clock."""
        self.test_seconds = time.monotonic() - self._start


def parameter_count(module: Seq2SeqModule) -> int:
    """Trainable numbers in the model."""
    return sum(parameter.numel() for parameter in module.model.parameters() if parameter.requires_grad)


def peak_memory_mb() -> float:
    """Peak memory of this process in MB; on the GPU, if there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
