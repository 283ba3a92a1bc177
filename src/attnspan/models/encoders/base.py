"""The interface of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence

SourceTensor = Int[Tensor, "B S"] | Int[Tensor, "B 2 S"] | UInt8[Tensor, "B C Y X"]
"""Padded sources: token ids, or pixels in C channels. A decoder that copies also needs, below the ids of the source
vocabulary, those of the same tokens in the target's, and from V on those of tokens that it lacks."""
SizesTensor = Int[Tensor, " B"] | Int[Tensor, "B 2"]
"""How large each source is, at least 1, on the CPU: its tokens, or the height and width of an image in pixels."""


class Encoder(nn.Module, ABC):
    """Turns an embedded source into a memory."""

    memory_size: int
    """M, features of a memory position."""
    final_size: int
    """F, features of its final state."""
    input_channels: int | None = None
    """C of the images that it reads; None where it reads tokens."""
    region_size: tuple[int, int] | None = None
    """Height and width in pixels of what one memory position stands for, row by row; None where it reads tokens."""
    handed_over: tuple[int, ...] = ()
    """Numbers of each part of :attr:`~attnspan.models.memory.Memory.handed_over`."""

    def load_pretrained(self) -> None:
        """Read weights that were trained elsewhere, before training begins."""

    @abstractmethod
    def forward(self, embedded: Float[Tensor, "B S E"], lengths: Int[Tensor, " B"]) -> Memory:
        """Read embedded sources. ``lengths``, at least 1, are on the CPU."""


class BuildEncoder(Protocol):
    """An encoder class with its own settings filled in (``_partial_: true`` in the config)."""

    def __call__(self, *, embedding_size: int, rnn: BuildRecurrence) -> Encoder:
        """Build the encoder for E = ``embedding_size``; ``rnn`` builds its cells."""
