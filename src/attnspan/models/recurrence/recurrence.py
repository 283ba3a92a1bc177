"""Recurrence: the interface by which encoders and decoders do not depend on the cell, and torch's GRU and LSTM."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from attnspan.errors import check_counts, check_numbers

State = tuple[Tensor, ...]
"""What is carried from step to step: tensors whose first dimension is the batch."""

CellState = tuple[Float[Tensor, "B L _"], ...]
"""The state of all layers, [B, L, H]: (h,) of a GRU, (h, c) of an LSTM, whose h is smaller with a projection."""


class RecurrentLayers(nn.Module, ABC):
    """One or more layers of cells over a sequence."""

    cells: nn.Module
    layers: int
    """L."""
    bridged: int
    """How many parts of a decoder's initial state, [B, L, H] each, a bridge makes from the encoder's final state."""
    handed_over: tuple[int, ...] = ()
    """Numbers a layer of each further part, which a decoder takes over from an encoder with the same cells."""

    output_part: int = 0
    """Which part of the state is h, the outputs of the last step."""

    @property
    def parts(self) -> int:
        """Tensors of the state."""
        return self.bridged + len(self.handed_over)

    @abstractmethod
    def forward(
        self, inputs: Any, state: CellState | None = None, mask: Bool[Tensor, "B T"] | None = None
    ) -> tuple[Any, CellState]:
        """Read inputs [B, T, I] from ``state`` or zeros: outputs [B, T, H] of the top layer, and the final state.

        Real inputs come first. Behind them, where ``mask`` is False, parts that are handed over stay as they are, and
        all else means nothing.
        """

    def step(self, parts: Sequence[Float[Tensor, "B T _"]], state: CellState) -> tuple[Tensor, CellState]:
        """Read inputs that come in parts, which together have I features, from ``state``: as :meth:`forward`."""
        outputs, final = self(parts[0] if len(parts) == 1 else torch.cat([*parts], dim=-1), state)
        return outputs, final

    @abstractmethod
    def read(
        self, inputs: Float[Tensor, "B T I"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B T H"], CellState]:
        """Read padded sequences from zeros: outputs, and the state at the end of each. ``lengths`` are on the CPU."""


class BuildCell(Protocol):
    """``torch.nn.GRU`` or ``torch.nn.LSTM`` (``_partial_: true`` in the config)."""

    def __call__(
        self, input_size: int, hidden_size: int, *, num_layers: int, dropout: float, batch_first: bool
    ) -> nn.GRU | nn.LSTM:
        """Build the cells for these sizes."""


class BuildRecurrence(Protocol):
    """A class of :class:`RecurrentLayers` with its own settings filled in (``conf/rnn/``)."""

    def __call__(self, *, input_size: int, hidden_size: int, layers: int = ...) -> RecurrentLayers:
        """Build the recurrence for these sizes; ``layers`` replaces the config's number of layers."""


class Recurrence(RecurrentLayers):
    """torch's GRU or LSTM, with dropout between the layers.

    torch's GRU applies the reset gate to W_hn h + b_hn, as cuDNN and Keras do; Cho et al. 2014 apply it to h.

    Args:
        cell: ``torch.nn.GRU`` or ``torch.nn.LSTM``.
        input_size: features of an input.
        hidden_size: H.
        layers: L.
        dropout: probability, between layers only.
    """

    def __init__(self, *, cell: BuildCell, input_size: int, hidden_size: int, layers: int, dropout: float) -> None:
        super().__init__()
        check_counts(layers=layers)
        check_numbers(dropout=dropout, below=1)
        used_dropout = dropout if layers > 1 else 0.0  # torch warns of a dropout that has no effect
        self.cells: nn.GRU | nn.LSTM = cell(
            input_size, hidden_size, num_layers=layers, dropout=used_dropout, batch_first=True
        )
        self.layers = layers
        self.bridged = 2 if isinstance(self.cells, nn.LSTM) else 1

    def forward(
        self,
        inputs: Float[Tensor, "B T I"] | PackedSequence,
        state: CellState | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T H"] | PackedSequence, CellState]:
        """Read the inputs from ``state`` or zeros: outputs of the top layer, and the final state of all layers."""
        weight = self.cells.weight_hh_l0
        if weight.device.type == "cpu" and self.parts == 2 and torch.is_autocast_enabled("cpu"):
            # Most CPUs have no bfloat16 kernel for LSTM, and torch raises an error.
            inputs, state = inputs.to(weight.dtype), state and tuple(part.to(weight.dtype) for part in state)
            with torch.autocast("cpu", enabled=False):
                return self.forward(inputs, state)
        if state is None:
            outputs, final = self.cells(inputs)
        else:
            initial = [part.transpose(0, 1).contiguous() for part in state]  # torch has the layers first
            outputs, final = self.cells(inputs, tuple(initial) if self.parts == 2 else initial[0])
        parts = final if self.parts == 2 else (final,)
        return outputs, tuple(part.transpose(0, 1) for part in parts)

    def read(
        self, inputs: Float[Tensor, "B T I"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B T H"], CellState]:
        """See the base class. Packed, for torch gives an LSTM's c at the end of each source in no other way."""
        packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        outputs, final = self(packed)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=inputs.size(1))
        return outputs, final
