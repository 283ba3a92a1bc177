"""Recurrence: torch's GRU and LSTM behind one interface, so that encoders and decoders do not depend on the cell."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from attnspan.errors import check_counts, check_numbers

State = tuple[Tensor, ...]
"""What is carried from step to step: tensors whose first dimension is the batch."""

CellState = tuple[Float[Tensor, "B L _"], ...]
"""The state of all layers, [B, L, H]: (h,) for GRU, (h, c) for LSTM; h of an LSTM with projection is smaller."""


class BuildCell(Protocol):
    """``torch.nn.GRU`` or ``torch.nn.LSTM`` (``_partial_: true`` in the config)."""

    def __call__(
        self, input_size: int, hidden_size: int, *, num_layers: int, dropout: float, batch_first: bool
    ) -> nn.GRU | nn.LSTM:
        """Build the cells for these sizes."""


class BuildRecurrence(Protocol):
    """:class:`Recurrence` with its own settings filled in (``conf/rnn/``)."""

    def __call__(self, *, input_size: int, hidden_size: int, layers: int = ...) -> Recurrence:
        """Build the recurrence for these sizes; ``layers`` replaces the config's number of layers."""


class Recurrence(nn.Module):
    """One or more layers of cells over a sequence, with dropout between the layers.

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
        self.cells = cell(input_size, hidden_size, num_layers=layers, dropout=used_dropout, batch_first=True)
        self.layers = layers
        self.parts = 2 if isinstance(self.cells, nn.LSTM) else 1

    def forward(
        self, inputs: Float[Tensor, "B T I"] | PackedSequence, state: CellState | None = None
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
