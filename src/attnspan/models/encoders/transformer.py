"""The encoder of Vaswani et al. 2017."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnspan.models.encoders.base import Encoder
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence
from attnspan.models.transformer_layers import EncoderLayer, Positions, check_sizes, draw_matrices


class TransformerEncoder(Encoder):
    """Layers of self-attention and feed-forward (section 3.1). Its last word is the mean of its states.

    Args:
        embedding_size: E, features of an embedded source token.
        hidden_size: M.
        rnn: not used, there are no cells.
        layers: L.
        heads: of each attention, side by side.
        feedforward_size: features inside the feed-forward sublayers.
        dropout: probability, on attention weights, inside the feed-forward sublayers and on what a sublayer says.
        norm_first: a sublayer normalises what it reads, and the last layer's states are normalised once more; if not,
            a sublayer normalises its sum with what it read, as in the paper.

    Raises:
        ValueError: there is no layer, or ``hidden_size`` does not fall into ``heads`` equal parts.
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
        check_sizes("encoder", layers, heads, norm_first, {"encoder.hidden_size": hidden_size})
        self.positions = Positions(embedding_size=embedding_size, hidden_size=hidden_size)
        self.layers = nn.ModuleList(
            EncoderLayer(hidden_size, heads, feedforward_size, dropout, batch_first=True, norm_first=norm_first)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(hidden_size) if norm_first else nn.Identity()
        draw_matrices(self)
        self.memory_size = hidden_size
        self.final_size = hidden_size

    def forward(self, embedded: Tensor, lengths: Tensor) -> Memory:
        """Read embedded sources [B, S, E] with lengths [B] int64, at least 1."""
        lengths = lengths.to(embedded.device, non_blocking=True).unsqueeze(1)  # [B, 1]
        mask = torch.arange(embedded.size(1), device=embedded.device) < lengths
        states = self.positions(embedded.masked_fill(~mask.unsqueeze(-1), 0.0), 0)
        for layer in self.layers:
            states = layer(states, mask.unsqueeze(1))
        states = self.norm(states).masked_fill(~mask.unsqueeze(-1), 0.0)
        return Memory.of(states, mask, (states.sum(dim=1) / lengths,))
