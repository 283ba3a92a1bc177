"""Encoders: anything that turns a source into a :class:`~attnspan.models.memory.Memory`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from attnspan.models.encoders.base import Encoder
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence


class BidirectionalEncoder(Encoder):
    """h_j = [h_j forward; h_j backward]  (Bahdanau et al. 2015, A.2.1), each layer reading both directions of the last.

    The result is that of torch's own cells over a packed sequence (a test holds them equal): each direction starts and
    ends at an example's own tokens. It is computed without packing, whose backward pass on the CPU takes time quadratic
    in the length: the forward direction meets padding only after the last token, and the backward direction reads each
    source reversed within its own length, so that there too the padding comes last.

    Its last word is, layer by layer, the forward h after the last token beside the backward h after the first.

    Args:
        embedding_size: E, features of an embedded source token.
        hidden_size: M, half of it from each direction.
        rnn: builds the cells of one direction in one layer.
        layers: number of layers.
        dropout: probability, between layers only.
        final_state: ``both`` directions have the last word, or ``backward`` alone, which has just read the first token.

    Raises:
        ValueError: ``hidden_size`` is odd, there is no layer, or ``final_state`` is neither of the two.
    """

    def __init__(
        self,
        *,
        embedding_size: int,
        hidden_size: int,
        rnn: BuildRecurrence,
        layers: int,
        dropout: float,
        final_state: str,
    ) -> None:
        super().__init__()
        if hidden_size % 2:
            raise ValueError(f"encoder.hidden_size={hidden_size} is odd, and each of two directions gets half of it")
        if layers < 1:
            raise ValueError(f"encoder.layers={layers} must be at least 1")
        if final_state not in ("both", "backward"):
            raise ValueError(f"encoder.final_state='{final_state}' is neither 'both' nor 'backward'")
        sizes = [embedding_size] + [hidden_size] * (layers - 1)
        self.forwards = nn.ModuleList(rnn(input_size=size, hidden_size=hidden_size // 2, layers=1) for size in sizes)
        self.backwards = nn.ModuleList(rnn(input_size=size, hidden_size=hidden_size // 2, layers=1) for size in sizes)
        self.between = nn.Dropout(dropout)
        self.final_state = final_state
        self.memory_size = hidden_size
        self.final_size = layers * (hidden_size if final_state == "both" else hidden_size // 2)

    def forward(self, embedded: Tensor, lengths: Tensor) -> Memory:
        """Read embedded sources [B, S, E] with lengths [B] int64, at least 1."""
        lengths = lengths.to(embedded.device, non_blocking=True).unsqueeze(1)  # [B, 1]
        positions = torch.arange(embedded.size(1), device=embedded.device)  # [S]
        mask = positions < lengths
        mirrored = torch.where(mask, lengths - 1 - positions, positions)  # position j of the reversed source
        states = embedded.masked_fill(~mask.unsqueeze(-1), 0.0)

        final = []
        for layer, (forwards, backwards) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            states = self.between(states) if layer else states
            ahead, _ = forwards(states)
            behind, _ = backwards(_reorder(states, mirrored))
            ends = [_reorder(side, lengths - 1).squeeze(1) for side in (ahead, behind)]
            final += ends if self.final_state == "both" else ends[1:]
            states = torch.cat([ahead, _reorder(behind, mirrored)], dim=-1)
        return Memory.of(states, mask, (torch.cat(final, dim=-1),))


class UnidirectionalEncoder(Encoder):
    """One direction only, as in Sutskever et al. 2014 and Luong et al. 2015; its last word is each layer's h, and c.

    It is packed, since torch hands out an LSTM's cells at the end of each source in no other way.

    Args:
        embedding_size: E, features of an embedded source token.
        hidden_size: M.
        rnn: builds the cells.
        layers: number of layers.
        reverse: reads each source from its last token to its first. Memory position j is token j all the same.
    """

    def __init__(
        self, *, embedding_size: int, hidden_size: int, rnn: BuildRecurrence, layers: int, reverse: bool
    ) -> None:
        super().__init__()
        self.rnn = rnn(input_size=embedding_size, hidden_size=hidden_size, layers=layers)
        self.reverse = reverse
        self.memory_size = hidden_size
        self.final_size = layers * hidden_size

    def forward(self, embedded: Tensor, lengths: Tensor) -> Memory:
        """Read embedded sources [B, S, E] with lengths [B] int64 (on the CPU), at least 1."""
        positions = torch.arange(embedded.size(1), device=embedded.device)  # [S]
        ends = lengths.to(embedded.device, non_blocking=True).unsqueeze(1)  # [B, 1]
        mask = positions < ends
        order = torch.where(mask, ends - 1 - positions, positions) if self.reverse else positions.expand_as(mask)

        packed = pack_padded_sequence(_reorder(embedded, order), lengths, batch_first=True, enforce_sorted=False)
        states, last = self.rnn(packed)
        states, _ = pad_packed_sequence(states, batch_first=True, total_length=embedded.size(1))
        return Memory.of(_reorder(states, order), mask, tuple(part.flatten(1) for part in last))


def _reorder(states: Tensor, positions: Tensor) -> Tensor:
    """Pick states [B, S, M] at positions [B, S']."""
    return states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.size(-1)))
