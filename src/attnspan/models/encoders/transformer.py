"""The encoder of Vaswani et al. 2017."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnspan.models.encoders.base import Encoder
from attnspan.models.memory import Memory
from attnspan.models.transformer_layers import EncoderLayer, Stack


class TransformerEncoder(Stack, Encoder):
    """Layers of self-attention and feed-forward (section 3.1). The final state is the mean of its states.

    Its settings are those of :class:`~attnspan.models.transformer_layers.Stack`, where H is M.
    """

    layer = EncoderLayer

    def forward(self, embedded: Float[Tensor, "B S E"], lengths: Int[Tensor, " B"]) -> Memory:
        """Read embedded sources of ``lengths``, at least 1."""
        lengths = lengths.to(embedded.device, non_blocking=True).unsqueeze(1)  # [B, 1]
        mask = torch.arange(embedded.size(1), device=embedded.device) < lengths
        states, relations = self.positions(embedded.masked_fill(~mask.unsqueeze(-1), 0.0), 0, whole=True)
        for layer in self.layers:
            states = layer(states, mask.unsqueeze(1), relations)
        states = self.norm(states).masked_fill(~mask.unsqueeze(-1), 0.0)
        return Memory.of(states, mask, (states.sum(dim=1) / lengths,))
