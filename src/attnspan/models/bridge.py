"""Bridges: how the encoder's final state becomes the decoder's initial state."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn


class BuildBridge(Protocol):
    """A bridge class (``_partial_: true`` in the config)."""

    def __call__(self, *, final_size: int, hidden_size: int, layers: int, parts: int) -> nn.Module:
        """Build the bridge from F = ``final_size`` features to ``parts`` tensors [B, layers, hidden_size]: h, c."""


class Bridge(nn.Module):
    """s_0 = tanh(W_s f), where f is the encoder's final state (Bahdanau et al. 2015, A.2.2).

    Each layer of the decoder has its own initial state. An LSTM's c_0 has a projection of its own, of the encoder's
    final c if it has one, else of f.
    """

    def __init__(self, *, final_size: int, hidden_size: int, layers: int, parts: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(final_size, layers * hidden_size) for _ in range(parts))
        self.layers = layers

    def forward(self, final_state: tuple[Float[Tensor, "B F"], ...]) -> tuple[Float[Tensor, "B L H"], ...]:
        """Map the encoder's final state to the decoder's initial state."""
        inputs = _one_for_each(len(self.projections), final_state)
        projected = [torch.tanh(project(final)) for project, final in zip(self.projections, inputs, strict=True)]
        return tuple(state.unflatten(1, (self.layers, -1)) for state in projected)


class CopyBridge(nn.Module):
    """s_0 = f: each layer of the decoder starts from the encoder's (Sutskever et al. 2014; Luong et al. 2015).

    Raises:
        ValueError: the final state does not have the size of the decoder's state.
    """

    def __init__(self, *, final_size: int, hidden_size: int, layers: int, parts: int) -> None:
        super().__init__()
        if final_size != layers * hidden_size:
            raise ValueError(
                f"the encoder's final state has {final_size} features (encoder.layers times encoder.hidden_size), and "
                f"the decoder's state has {layers * hidden_size} (rnn.layers={layers} times "
                f"model.hidden_size={hidden_size})"
            )
        self.layers, self.parts = layers, parts

    def forward(self, final_state: tuple[Float[Tensor, "B F"], ...]) -> tuple[Float[Tensor, "B L H"], ...]:
        """Split the encoder's final state into layers. If the encoder has no c, h takes its place."""
        return tuple(state.unflatten(1, (self.layers, -1)) for state in _one_for_each(self.parts, final_state))


def _one_for_each(parts: int, final_state: tuple[Tensor, ...]) -> list[Tensor]:
    """(h, c) for an LSTM, (h, h) if the encoder has no c; (h,) for a GRU."""
    return [final_state[min(part, len(final_state) - 1)] for part in range(parts)]
