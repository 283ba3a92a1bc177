"""Encoders with GRU or LSTM cells."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnspan.errors import SettingError, check_counts, check_numbers, check_switches
from attnspan.models.encoders.base import Encoder
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence


class BidirectionalEncoder(Encoder):
    """h_j = [h_j forward; h_j backward]  (Bahdanau et al. 2015, A.2.1); each layer reads both directions of the last.

    The result is that of torch's own cells over a packed sequence (a test holds them equal): each direction starts and
    ends at an example's own tokens. It is computed without packing, whose backward pass on the CPU takes time quadratic
    in the length: the forward direction meets padding only after the last token, and the backward direction reads each
    source reversed within its own length, so that there too the padding comes last.

    The final state is, layer by layer, [forward h after the last token; backward h after the first token].

    Args, besides those of :class:`~attnspan.models.encoders.base.BuildEncoder`:
        hidden_size: M, half of it from each direction.
        layers: number of layers.
        dropout: probability, between layers only.
        final_state: of ``both`` directions, or of ``backward`` only, as in the paper.
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
        check_counts(hidden_size=hidden_size, layers=layers)
        check_numbers(dropout=dropout, below=1)
        if hidden_size % 2:
            raise SettingError("hidden_size", f"must be even, because each direction has half of it, not {hidden_size}")
        if final_state not in ("both", "backward"):
            raise SettingError("final_state", f"must be both or backward, not {final_state!r}")
        sizes = [embedding_size] + [hidden_size] * (layers - 1)
        first = [rnn(input_size=size, hidden_size=hidden_size // 2, layers=1) for size in sizes]
        self.forwards = nn.ModuleList(first)
        self.backwards = nn.ModuleList(rnn(input_size=size, hidden_size=hidden_size // 2, layers=1) for size in sizes)
        self.dropout = nn.Dropout(dropout)
        self.final_state = final_state
        self.memory_size = hidden_size
        directions = 2 if final_state == "both" else 1
        self.final_size = layers * directions * (hidden_size // 2)
        self.handed_over = tuple(layers * directions * size for size in first[0].handed_over)

    def forward(self, embedded: Float[Tensor, "B S E"], lengths: Int[Tensor, " B"]) -> Memory:
        """Read embedded sources of ``lengths``, at least 1."""
        lengths = lengths.to(embedded.device, non_blocking=True).unsqueeze(1)  # [B, 1]
        positions = torch.arange(embedded.size(1), device=embedded.device)  # [S]
        mask = positions < lengths
        reversed_positions = torch.where(mask, lengths - 1 - positions, positions)
        states = embedded.masked_fill(~mask.unsqueeze(-1), 0.0)

        final, handed_over = [], []
        for layer, (read_forwards, read_backwards) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            states = self.dropout(states) if layer else states
            forward, after_forward = read_forwards(states, mask=mask)
            backward, after_backward = read_backwards(_reorder(states, reversed_positions), mask=mask)
            last = [_reorder(direction, lengths - 1).squeeze(1) for direction in (forward, backward)]
            after = [part[read_forwards.bridged :] for part in (after_forward, after_backward)]
            first = 0 if self.final_state == "both" else 1
            final += last[first:]
            handed_over += after[first:]
            states = torch.cat([forward, _reorder(backward, reversed_positions)], dim=-1)
        parts = tuple(torch.cat(parts, dim=-1).squeeze(1) for parts in zip(*handed_over, strict=True))
        return Memory.of(states, mask, (torch.cat(final, dim=-1),), handed_over=parts)


class UnidirectionalEncoder(Encoder):
    """One direction only, as in Sutskever et al. 2014 and Luong et al. 2015. The final state is each layer's h, and c.

    Args, besides those of :class:`~attnspan.models.encoders.base.BuildEncoder`:
        hidden_size: M.
        layers: number of layers.
        reverse: read each source from its last token to its first. Memory position j is token j all the same.
    """

    def __init__(
        self, *, embedding_size: int, hidden_size: int, rnn: BuildRecurrence, layers: int, reverse: bool
    ) -> None:
        super().__init__()
        check_counts(hidden_size=hidden_size, layers=layers)
        check_switches(reverse=reverse)
        self.rnn = rnn(input_size=embedding_size, hidden_size=hidden_size, layers=layers)
        self.reverse = reverse
        self.memory_size = hidden_size
        self.final_size = layers * hidden_size
        self.handed_over = tuple(layers * size for size in self.rnn.handed_over)

    def forward(self, embedded: Float[Tensor, "B S E"], lengths: Int[Tensor, " B"]) -> Memory:
        """Read embedded sources. ``lengths``, at least 1, are on the CPU."""
        positions = torch.arange(embedded.size(1), device=embedded.device)  # [S]
        ends = lengths.to(embedded.device, non_blocking=True).unsqueeze(1)  # [B, 1]
        mask = positions < ends
        order = torch.where(mask, ends - 1 - positions, positions) if self.reverse else positions.expand_as(mask)

        states, final = self.rnn.read(_reorder(embedded, order), lengths)
        flat = tuple(part.flatten(1) for part in final)
        handed_over = flat[self.rnn.bridged :]
        return Memory.of(_reorder(states, order), mask, handed_over[:1] or flat, handed_over=handed_over)


def _reorder(states: Tensor, positions: Tensor) -> Tensor:
    """Pick states [B, S, M] at positions [B, S']."""
    return states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.size(-1)))
