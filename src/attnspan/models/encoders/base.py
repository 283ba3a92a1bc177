"""What the model knows of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor, nn

from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence


class Encoder(nn.Module, ABC):
    """What the model knows of an encoder.

    Attributes:
        memory_size: M, features of a memory position.
        final_size: F, features of its last word.
    """

    memory_size: int
    final_size: int

    @abstractmethod
    def forward(self, embedded: Tensor, lengths: Tensor) -> Memory:
        """Read embedded sources [B, S, E] with lengths [B] int64 (on the CPU), at least 1."""


class BuildEncoder(Protocol):
    """An encoder class with its own settings filled in (``_partial_: true`` in the config)."""

    def __call__(self, *, embedding_size: int, rnn: BuildRecurrence) -> Encoder:
        """Build the encoder for this size, of cells that ``rnn`` builds."""
