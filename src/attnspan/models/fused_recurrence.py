"""A recurrence unrolled as one autograd function: the same numbers as torch's kernel for CPUs, in less time.

Nothing here is needed to understand the model: :class:`~attnspan.models.recurrence.Recurrence` is the definition, and a
test holds this file equal to it, gradients included. Torch's kernel is made of a dozen operations a step, each with a
node in the graph of the way back; here a step is a matrix product and one compiled function, and each weight gradient
one product over all steps. ``d_x`` is the gradient of the loss in x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attnspan.models.fused_cells import Cell, are_covered, at, cell_of, is_for_rows, states_from, way_back
from attnspan.models.recurrence import Recurrence, State


class FusedRecurrence(Recurrence):
    """One layer of GRU or LSTM over several steps in training, on a CPU. Whatever else is as in the base class."""

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """See the base class."""
        weight = self.cells.weight_hh_l0
        assert isinstance(weight, Tensor)
        is_sequence = isinstance(inputs, Tensor) and inputs.size(1) > 1  # it may be packed
        is_covered = self.layers == 1 and are_covered(self.cells) and is_for_rows(weight)
        if not (is_sequence and is_covered and torch.is_grad_enabled()):
            return super().forward(inputs, state)
        input_weight, hidden_weight, input_bias, hidden_bias = self.cells.all_weights[0]
        given = F.linear(inputs, input_weight, input_bias)
        if state is None:
            start = (given.new_zeros(given.size(0), self.cells.hidden_size),) * self.parts
        else:
            start = tuple(part[:, 0] for part in state)
        with torch.autocast(inputs.device.type, enabled=False):  # the recurrence stays in the weights' precision
            outputs, *cells = Unrolled.apply(
                cell_of(self.cells),
                given.to(weight.dtype),
                hidden_weight,
                hidden_bias,
                *(part.to(weight.dtype) for part in start),
            )
        return outputs, (outputs[:, -1:], *(part.unsqueeze(1) for part in cells))


class Unrolled(torch.autograd.Function):
    """h_t for all t, and an LSTM's last c, from the inputs' share of the gates and the first state."""

    @staticmethod
    def forward(
        ctx: Any, cell: type[Cell], inputs: Tensor, hidden_weight: Tensor, hidden_bias: Tensor, *start: Tensor
    ) -> tuple[Tensor, ...]:
        """Unroll.

        Args:
            ctx: autograd's.
            cell: which recurrence, of G gates.
            inputs: [B, T, GH] W x_t + b.
            hidden_weight: [GH, H] the old state's share of the gates.
            hidden_bias: [GH].
            start: each part [B, H].

        Returns:
            hidden [B, T, H], and the last c [B, H] if the cell has one.
        """
        given = inputs.transpose(0, 1).contiguous()
        past = states_from(start, len(given))
        hidden = past[0]
        asked = torch.empty_like(given)
        extra = torch.empty_like(hidden[1:])
        weight = hidden_weight.t().contiguous()
        for t in range(len(given)):
            torch.addmm(hidden_bias, hidden[t], weight, out=asked[t])
            cell.step(given[t], asked[t], at(past, t), at(past, t + 1), extra[t])
        ctx.cell = cell
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden_weight, asked, extra, *past)
        return hidden[1:].transpose(0, 1), *(part[-1] for part in past[1:])

    @staticmethod
    @way_back
    def backward(ctx: Any, d_output: Tensor | None, *d_last: Tensor | None) -> tuple[Tensor | None, ...]:
        """Walk back through time."""
        hidden_weight, asked, extra, *past = ctx.saved_tensors
        cell, hidden = ctx.cell, past[0]
        needed = cell.needed(asked, tuple(part[:-1] for part in past), extra)
        d_given, d_asked = torch.empty_like(asked), torch.empty_like(asked)
        zero = torch.zeros_like(hidden[0])
        d_state = (zero, *(zero if part is None else part.contiguous() for part in d_last))
        for t in reversed(range(len(asked))):
            if d_output is not None:
                d_state = (d_state[0] + d_output[:, t], *d_state[1:])
            direct = cell.back(d_state, asked[t], at(needed, t), d_given[t], d_asked[t])
            d_state = (torch.addmm(direct[0], d_asked[t], hidden_weight), *direct[1:])
        return (
            None,
            d_given.transpose(0, 1),
            d_asked.flatten(0, 1).t() @ hidden[:-1].flatten(0, 1),
            d_asked.sum(dim=(0, 1)),
            *d_state,
        )
