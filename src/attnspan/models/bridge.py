"""Bridges: how the encoder's last word becomes the decoder's first state."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from attnspan.models.recurrence.recurrence import State


class BuildBridge(Protocol):
    """A bridge class (``_partial_: true`` in the config)."""

    def __call__(self, *, final_size: int, hidden_size: int, layers: int, parts: int) -> nn.Module:
        """Build the bridge to a state of ``parts`` tensors [B, layers, hidden_size]."""


class Bridge(nn.Module):
    """s_0 = tanh(W_s f), f being what the encoder says in the end (Bahdanau et al. 2015, A.2.2).

    An LSTM's c_0 has a projection of its own, of the encoder's cells where it hands them on, and else of f.

    Args:
        final_size: F, features of f.
        hidden_size: H.
        layers: L of the decoder; each gets a state of its own.
        parts: 1 for GRU (h), 2 for LSTM (h, c).
    """

    def __init__(self, *, final_size: int, hidden_size: int, layers: int, parts: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(final_size, layers * hidden_size) for _ in range(parts))
        self.layers = layers

    def forward(self, final: State) -> State:
        """Map the encoder's final [B, F], one or more, to the parts [B, L, H] of the first state."""
        said = [final[min(part, len(final) - 1)] for part in range(len(self.projections))]
        projected = [torch.tanh(project(word)) for project, word in zip(self.projections, said, strict=True)]
        return tuple(state.unflatten(1, (self.layers, -1)) for state in projected)


class CopyBridge(nn.Module):
    """s_0 = f: each layer of the decoder goes on from the encoder's (Sutskever et al. 2014; Luong et al. 2015).

    Args:
        final_size: F.
        hidden_size: H.
        layers: L.
        parts: 1 for GRU (h), 2 for LSTM (h, c).

    Raises:
        ValueError: the encoder's last word has not the size of the decoder's state.
    """

    def __init__(self, *, final_size: int, hidden_size: int, layers: int, parts: int) -> None:
        super().__init__()
        if final_size != layers * hidden_size:
            raise ValueError(
                f"the encoder ends with {final_size} features (encoder.layers times encoder.hidden_size), and "
                f"decoder.bridge copies {layers * hidden_size} of them (rnn.layers={layers} times "
                f"model.hidden_size={hidden_size})"
            )
        self.layers, self.parts = layers, parts

    def forward(self, final: tuple[Tensor, ...]) -> State:
        """Cut the encoder's final [B, L H] into layers [B, L, H]; without cells of its own, h stands for c too."""
        said = [final[min(part, len(final) - 1)] for part in range(self.parts)]
        return tuple(state.unflatten(1, (self.layers, -1)) for state in said)
