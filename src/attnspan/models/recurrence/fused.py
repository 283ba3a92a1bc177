"""The recurrence unrolled by :mod:`attnspan.kernels.recurrence`: the same numbers in less time.

:class:`~attnspan.models.recurrence.recurrence.Recurrence` is the definition, and a test holds this file equal to it,
gradients included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from attnspan.kernels.backend import uses_numba
from attnspan.kernels.cells import cell_kernel, is_supported
from attnspan.kernels.recurrence import UnrolledRecurrence
from attnspan.models.recurrence.recurrence import CellState, Recurrence


class FusedRecurrence(Recurrence):
    """Compiled on a CPU, for one layer of GRU or LSTM: training's steps, and single ones without gradients."""

    def forward(
        self,
        inputs: Float[Tensor, "B T I"] | PackedSequence,
        state: CellState | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T H"] | PackedSequence, CellState]:
        """See the base class."""
        weight = self.cells.weight_hh_l0
        assert isinstance(weight, Tensor)
        can_fuse = self.layers == 1 and is_supported(self.cells) and torch.is_grad_enabled()
        if isinstance(inputs, PackedSequence) or inputs.size(1) < 2 or not (can_fuse and uses_numba(weight)):
            return super().forward(inputs, state)
        input_weight, hidden_weight, input_bias, hidden_bias = self.cells.all_weights[0]
        input_gates = F.linear(inputs, input_weight, input_bias)
        if state is None:
            initial = (input_gates.new_zeros(input_gates.size(0), self.cells.hidden_size),) * self.parts
        else:
            initial = tuple(part[:, 0] for part in state)
        with torch.autocast(inputs.device.type, enabled=False):  # the recurrence stays in the weights' precision
            outputs, *cells = UnrolledRecurrence.apply(
                cell_kernel(self.cells),
                input_gates.to(weight.dtype),
                hidden_weight,
                hidden_bias,
                *(part.to(weight.dtype) for part in initial),
            )
        return outputs, (outputs[:, -1:], *(part.unsqueeze(1) for part in cells))

    def step(self, parts: Sequence[Float[Tensor, "B T _"]], state: CellState) -> tuple[Tensor, CellState]:
        """See the base class. Without gradients one step is one compiled function behind the products."""
        weight = self.cells.weight_hh_l0
        assert isinstance(weight, Tensor)
        is_one = parts[0].size(1) == 1 and self.layers == 1 and not torch.is_grad_enabled()
        if not (is_one and is_supported(self.cells) and uses_numba(weight)):
            return super().step(parts, state)
        input_weight, hidden_weight, input_bias, hidden_bias = self.cells.all_weights[0]
        gates: Tensor = input_bias
        with torch.autocast("cpu", enabled=False):  # the recurrence stays in the weights' precision
            weights = input_weight.split([part.size(-1) for part in parts], dim=1)
            for part, of_part in zip(parts, weights, strict=True):
                gates = torch.addmm(gates, part[:, 0].to(weight.dtype), of_part.t())
            before = tuple(part[:, 0].to(weight.dtype).contiguous() for part in state)
            after = tuple(torch.empty_like(part) for part in before)
            hidden_gates = torch.addmm(hidden_bias, before[0], hidden_weight.t())
            cell_kernel(self.cells).step(gates, hidden_gates, before, after, torch.empty_like(before[0]))
        return after[0].unsqueeze(1), tuple(part.unsqueeze(1) for part in after)
