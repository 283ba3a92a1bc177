"""A recurrence unrolled as one autograd function: the same numbers as torch's kernel for CPUs, in less time.

Torch's kernel is made of a dozen operations a step, each with a node in the graph of the backward pass; here a step is
a matrix product and one compiled function, and each weight gradient one product over all steps. ``d_x`` is the gradient
of the loss in x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attnspan.kernels.cells import Cell, at, states_from, way_back


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
