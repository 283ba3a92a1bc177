"""The encoder of Vaswani et al. 2017."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnspan.models.encoders.base import Encoder
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence
from attnspan.models.transformer_layers import EncoderLayer, Positions, check_layers, initialise_matrices


class TransformerEncoder(Encoder):
    """Layers of self-attention and feed-forward (section 3.1). The final state is the mean of its states.

    Args:
        embedding_size: E, features of an embedded source token.
        hidden_size: M.
        rnn: not used.
        layers: L.
        heads: of each attention. They share M equally.
        feedforward_size: features inside the feed-forward sublayers.
        dropout: probability, on attention weights, inside the feed-forward sublayers and on a sublayer's output.
        norm_first: normalise the input of each sublayer, and the last layer's states once more; if false, normalise
            the sum of a sublayer's input and output, as in the paper.
    """

    def __init__(
        self,
        *,
        embedding_size: int,
        hidden_size: int,
        rnn: BuildRecurrence,
        layers: int,
        heads: int,
        feedforward_size: int,
        dropout: float,
        norm_first: bool,
    ) -> None:
        super().__init__()
        check_layers(hidden_size, layers, heads, feedforward_size, dropout, norm_first)
        self.positions = Positions(embedding_size=embedding_size, hidden_size=hidden_size)
        self.layers = nn.ModuleList(
            EncoderLayer(hidden_size, heads, feedforward_size, dropout, batch_first=True, norm_first=norm_first)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(hidden_size) if norm_first else nn.Identity()
        initialise_matrices(self)
        self.memory_size = hidden_size
        self.final_size = hidden_size

    def forward(self, embedded: Float[Tensor, "B S E"], lengths: Int[Tensor, " B"]) -> Memory:
        """Read embedded sources of ``lengths``, at least 1."""
        lengths = lengths.to(embedded.device, non_blocking=True).unsqueeze(1)  # [B, 1]
        mask = torch.arange(embedded.size(1), device=embedded.device) < lengths
        states = self.positions(embedded.masked_fill(~mask.unsqueeze(-1), 0.0), 0)
        for layer in self.layers:
            states = layer(states, mask.unsqueeze(1))
        states = self.norm(states).masked_fill(~mask.unsqueeze(-1), 0.0)
        return Memory.of(states, mask, (states.sum(dim=1) / lengths,))
