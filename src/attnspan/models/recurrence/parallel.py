"""Cells whose gates do not see their own output, so that all steps of a known sequence are computed at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnspan.errors import check_counts, check_numbers
from attnspan.models.recurrence.recurrence import CellState, RecurrentLayers, State


class ParallelCell(nn.Module, ABC):
    """One layer of such cells."""

    bridged: int
    """See :class:`~attnspan.models.recurrence.recurrence.RecurrentLayers`."""
    handed_over: tuple[int, ...]
    """Likewise."""

    @abstractmethod
    def forward(
        self, inputs: Float[Tensor, "B T I"], state: State, mask: Bool[Tensor, "B T"] | None
    ) -> tuple[Float[Tensor, "B T H"], State]:
        """Outputs, and the state after each sequence's last real input.

        Each part of ``state`` is [B, n]. h is the first part that is handed over, or else the first one. Real inputs
        come first; None: all are real.
        """


class BuildParallelCell(Protocol):
    """A class of cells with its own settings filled in (``_partial_: true`` in the config)."""

    def __call__(self, *, input_size: int, hidden_size: int) -> ParallelCell:
        """Build a layer for these sizes."""


class ParallelRecurrence(RecurrentLayers):
    """One or more layers of parallel cells over a sequence, with dropout between the layers.

    Args:
        cell: builds a layer.
        input_size: features of an input.
        hidden_size: H.
        layers: L.
        dropout: probability, between layers only.
    """

    def __init__(
        self, *, cell: BuildParallelCell, input_size: int, hidden_size: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        check_counts(layers=layers)
        check_numbers(dropout=dropout, below=1)
        sizes = [input_size] + [hidden_size] * (layers - 1)
        stacked = [cell(input_size=size, hidden_size=hidden_size) for size in sizes]
        self.cells: nn.ModuleList = nn.ModuleList(stacked)
        self.dropout = nn.Dropout(dropout)
        self.layers = layers
        self.bridged, self.handed_over = stacked[0].bridged, stacked[0].handed_over
        self.output_part = self.bridged if self.handed_over else 0
        self._sizes = (*[hidden_size] * self.bridged, *self.handed_over)

    def forward(
        self,
        inputs: Float[Tensor, "B T I"],
        state: CellState | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T H"], CellState]:
        """Read the inputs from ``state`` or zeros: outputs of the top layer, and the final state of all layers."""
        dtype = next(self.parameters()).dtype
        if state is None:
            state = tuple(inputs.new_zeros(len(inputs), self.layers, size, dtype=dtype) for size in self._sizes)
        outputs, final = inputs, []
        for number, cell in enumerate(self.cells):
            outputs = self.dropout(outputs) if number else outputs
            outputs, after = cell(outputs, tuple(part[:, number].to(dtype) for part in state), mask)
            final.append(after)
        return outputs, tuple(torch.stack(parts, dim=1) for parts in zip(*final, strict=True))

    def read(
        self, inputs: Float[Tensor, "B T I"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B T H"], CellState]:
        """Read padded sequences from zeros; ``lengths`` are on the CPU."""
        ends = lengths.to(inputs.device, non_blocking=True).unsqueeze(1)
        mask = torch.arange(inputs.size(1), device=inputs.device) < ends
        return self(inputs.masked_fill(~mask.unsqueeze(-1), 0.0), mask=mask)


def last_real(steps: Float[Tensor, "B T n"], mask: Bool[Tensor, "B T"] | None) -> Float[Tensor, "B n"]:
    """Each sequence's step at its last real position."""
    if mask is None:
        return steps[:, -1]
    last = mask.sum(dim=1, keepdim=True) - 1
    return steps.gather(1, last.unsqueeze(-1).expand(-1, -1, steps.size(-1))).squeeze(1)


def running_sum(terms: Float[Tensor, "*batch T n"]) -> Float[Tensor, "*batch T n"]:
    """sum_{j <= t}; unlike ``torch.cumsum`` deterministic on a GPU."""
    return torch.ones(terms.size(-2), terms.size(-2), dtype=terms.dtype, device=terms.device).tril() @ terms


def scan(
    keep: Float[Tensor, "B T H"], new: Float[Tensor, "B T H"], initial: Float[Tensor, "B H"]
) -> Float[Tensor, "B T H"]:
    """h_t = keep_t h_{t-1} + new_t for all t, in log2(T) rounds (Hillis and Steele 1986).

    After a round, ``keep`` and ``new`` stand for twice as many steps. As ``keep`` is between 0 and 1, nothing grows: an
    h that is forgotten underflows to 0, where a running product that is divided again would need logarithms.
    """
    T, shift = keep.size(1), 1
    while shift < T:
        new = torch.cat([new[:, :shift], new[:, shift:] + keep[:, shift:] * new[:, :-shift]], dim=1)
        keep = torch.cat([keep[:, :shift], keep[:, shift:] * keep[:, :-shift]], dim=1)
        shift *= 2
    return new + keep * initial.unsqueeze(1)
