"""Encoders: anything that turns a source into a :class:`~attnspan.models.memory.Memory`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnspan.models.memory import Memory


class BiGRUEncoder(nn.Module):
    """Bidirectional GRU, h_j = [h_j forward; h_j backward]  (Bahdanau et al. 2015, A.1.1).

    The result is that of torch's GRU over a packed sequence (a test holds them equal): each direction starts and ends
    at an example's own tokens. It is computed without packing, whose backward pass on the CPU takes time quadratic in
    the length: the forward direction meets padding only after the last token, and the backward direction reads each
    source reversed within its own length, so that there too the padding comes last.

    Args:
        embedding_size: E, features of an embedded source token.
        hidden_size: features of a memory position, half of them from each direction.

    Raises:
        ValueError: ``hidden_size`` is odd.
    """

    def __init__(self, *, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        if hidden_size % 2:
            raise ValueError(f"encoder.hidden_size={hidden_size} is odd, and each of two directions gets half of it")
        self.forwards = nn.GRU(embedding_size, hidden_size // 2, batch_first=True)
        self.backwards = nn.GRU(embedding_size, hidden_size // 2, batch_first=True)
        self.memory_size = hidden_size
        self.final_size = hidden_size

    def forward(self, embedded: Tensor, lengths: Tensor) -> Memory:
        """Read the source.

        Args:
            embedded: [B, S, E].
            lengths: [B] int64, at least 1.

        Returns:
            A memory; its ``final`` is the forward state after the last token beside the backward one after the first.
        """
        lengths = lengths.to(embedded.device, non_blocking=True).unsqueeze(1)  # [B, 1]
        positions = torch.arange(embedded.size(1), device=embedded.device)  # [S]
        mask = positions < lengths
        mirrored = torch.where(mask, lengths - 1 - positions, positions)  # position j of the reversed source
        embedded = embedded.masked_fill(~mask.unsqueeze(-1), 0.0)

        ahead, _ = self.forwards(embedded)
        behind, _ = self.backwards(_reorder(embedded, mirrored))
        last = _reorder(torch.cat([ahead, behind], dim=-1), lengths - 1).squeeze(1)
        return Memory.of(torch.cat([ahead, _reorder(behind, mirrored)], dim=-1), mask, last)


def _reorder(states: Tensor, positions: Tensor) -> Tensor:
    """Pick states [B, S, M] at positions [B, S']."""
    return states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.size(-1)))
