"""Recurrence: torch's GRU and LSTM behind one interface, so that no encoder or decoder need know which one it has."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]
"""What is carried from step to step: tensors whose first dimension is the batch."""


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

    Its state has one tensor [B, L, H] a part, L being the layers: h for GRU, h and c for LSTM.

    Args:
        cell: ``torch.nn.GRU`` or ``torch.nn.LSTM``.
        input_size: features of an input.
        hidden_size: H.
        layers: L.
        dropout: probability, between layers only.

    Raises:
        ValueError: there is no layer.
    """

    def __init__(self, *, cell: BuildCell, input_size: int, hidden_size: int, layers: int, dropout: float) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"rnn.layers={layers} must be at least 1")
        between = dropout if layers > 1 else 0.0  # torch warns of a dropout that has no place
        self.cells = cell(input_size, hidden_size, num_layers=layers, dropout=between, batch_first=True)
        self.layers = layers
        self.parts = 2 if isinstance(self.cells, nn.LSTM) else 1

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Read inputs [B, T, I], or a packed sequence, from ``state`` or zeros: outputs [B, T, H] and last state."""
        weight = self.cells.weight_hh_l0
        if weight.device.type == "cpu" and self.parts == 2 and torch.is_autocast_enabled("cpu"):
            # Most CPUs have no bfloat16 kernel for LSTM, and torch ends with an error.
            inputs, state = inputs.to(weight.dtype), state and tuple(part.to(weight.dtype) for part in state)
            with torch.autocast("cpu", enabled=False):
                return self.forward(inputs, state)
        if state is None:
            outputs, last = self.cells(inputs)
        else:
            first = [part.transpose(0, 1).contiguous() for part in state]  # torch has the layers first
            outputs, last = self.cells(inputs, tuple(first) if self.parts == 2 else first[0])
        parts = last if self.parts == 2 else (last,)
        return outputs, tuple(part.transpose(0, 1) for part in parts)
