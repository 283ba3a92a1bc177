"""The interface of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from jaxtyping import Float, Int
from torch import Tensor, nn

from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence


class Encoder(nn.Module, ABC):
    """Turns an embedded source into a memory."""

    memory_size: int
    """M, features of a memory position."""
    final_size: int
    """F, features of its final state."""

    @abstractmethod
    def forward(self, embedded: Float[Tensor, "B S E"], lengths: Int[Tensor, " B"]) -> Memory:
        """Read embedded sources. ``lengths``, at least 1, are on the CPU."""


class BuildEncoder(Protocol):
    """An encoder class with its own settings filled in (``_partial_: true`` in the config)."""

    def __call__(self, *, embedding_size: int, rnn: BuildRecurrence) -> Encoder:
        """Build the encoder for E = ``embedding_size``; ``rnn`` builds its cells."""
