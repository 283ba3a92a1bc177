"""A recurrence unrolled as one autograd function: the same numbers as torch's kernel for CPUs, in less time.

Torch's kernel consists of a dozen operations a step, each with a node in the graph of the backward pass. Here a step
is a matrix product and one compiled function, and each weight gradient is one product over all steps. ``d_x`` is the
gradient of the loss in x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attnspan.kernels.cells import Cell, at, backward_without_autocast, state_buffers


class UnrolledRecurrence(torch.autograd.Function):
    """h_t for all t, and an LSTM's final c, from the input's share of the gates and the initial state."""

    @staticmethod
    def forward(
        ctx: Any, cell: Cell, inputs: Tensor, hidden_weight: Tensor, hidden_bias: Tensor, *initial: Tensor
    ) -> tuple[Tensor, ...]:
        """Unroll.

        For G gates, the inputs W x_t + b are [B, T, GH], weight and bias of the previous state [GH, H] and [GH], and
        each part of the initial state [B, H]. It returns hidden [B, T, H], and the final c [B, H] if the cell has one.
        """
        input_gates = inputs.transpose(0, 1).contiguous()
        states = state_buffers(initial, len(input_gates))
        hidden = states[0]
        hidden_gates = torch.empty_like(input_gates)
        activation = torch.empty_like(hidden[1:])
        weight = hidden_weight.t().contiguous()
        for t in range(len(input_gates)):
            torch.addmm(hidden_bias, hidden[t], weight, out=hidden_gates[t])
            cell.step(input_gates[t], hidden_gates[t], at(states, t), at(states, t + 1), activation[t])
        ctx.cell = cell
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden_weight, hidden_gates, activation, *states)
        return hidden[1:].transpose(0, 1), *(part[-1] for part in states[1:])

    @staticmethod
    @backward_without_autocast
    def backward(ctx: Any, d_output: Tensor | None, *d_final: Tensor | None) -> tuple[Tensor | None, ...]:
        """Backpropagate through time."""
        hidden_weight, hidden_gates, activation, *states = ctx.saved_tensors
        cell, hidden = ctx.cell, states[0]
        saved = cell.prepare_backward(hidden_gates, tuple(part[:-1] for part in states), activation)
        d_input_gates, d_hidden_gates = torch.empty_like(hidden_gates), torch.empty_like(hidden_gates)
        zero = torch.zeros_like(hidden[0])
        d_state = (zero, *(zero if part is None else part.contiguous() for part in d_final))
        for t in reversed(range(len(hidden_gates))):
            if d_output is not None:
                d_state = (d_state[0] + d_output[:, t], *d_state[1:])
            direct = cell.backward(d_state, hidden_gates[t], at(saved, t), d_input_gates[t], d_hidden_gates[t])
            d_state = (torch.addmm(direct[0], d_hidden_gates[t], hidden_weight), *direct[1:])
        return (
            None,
            d_input_gates.transpose(0, 1),
            d_hidden_gates.flatten(0, 1).t() @ hidden[:-1].flatten(0, 1),
            d_hidden_gates.sum(dim=(0, 1)),
            *d_state,
        )
