"""The Bahdanau decoder unrolled as one autograd function: the same numbers as the steps, in less time and memory.

:class:`~attnspan.models.decoders.bahdanau.BahdanauDecoder` is the definition, and a test holds this file equal to it,
gradients included. What is gained:

- No B x T x S x A activations are kept; the backward pass computes them again, one step at a time.
- Attention and its gradients read the memory once a step (:mod:`attnspan.kernels.additive`).
- The query and the recurrent gates come from one matrix product, and each weight gradient from one product over all
  steps instead of a sum of T small ones.

``d_x`` is the gradient of the loss in x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attnspan.kernels.additive import additive_attention
from attnspan.kernels.cells import Cell, at, backward_without_autocast, state_buffers


class FusedBahdanau(torch.autograd.Function):
    """s_t, a_t for all t, and an LSTM's final c.

    The arguments of ``apply``, of G gates:

    ==============  ==========  ======================================================
    cell                        which recurrence
    inputs          [B, T, GH]  W_e y_{t-1} + b, the embedded tokens' share of the gates
    keys            [B, S, A]
    states          [B, S, M]   0 in padding
    mask            [B, S]      bool
    context_weight  [GH, M]     of the gates
    hidden_weight   [GH, H]     of the gates
    hidden_bias     [GH]
    query_weight    [A, H]      W_a
    energy          [A]         v_a
    initial         [B, H]      each part of s_0
    ==============  ==========  ======================================================

    It returns hidden [B, T, H], weights [B, T, S], and the final c [B, H] if the cell has one.
    """

    @staticmethod
    def forward(ctx: Any, cell: Cell, inputs: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        """Unroll."""
        keys, states, mask, context_weight, hidden_weight, hidden_bias, query_weight, energy, *initial = given
        B, T, gates = inputs.shape
        A = energy.size(0)
        joint_weight = torch.cat([hidden_weight, query_weight]).t().contiguous()  # a fifth faster with one thread
        joint_bias = torch.cat([hidden_bias, hidden_bias.new_zeros(A)])
        attention = additive_attention(keys, states, mask, energy)
        cell_states = state_buffers(initial, T)
        hidden = cell_states[0]
        projected = inputs.new_empty(T, B, gates + A)  # s_{t-1} to gates and query
        activation = torch.empty_like(hidden[1:])
        contexts = inputs.new_empty(T, B, states.size(2))
        weights = inputs.new_empty(T, B, keys.size(1))
        for t in range(T):
            torch.addmm(joint_bias, hidden[t], joint_weight, out=projected[t])
            attention.forward(projected[t], weights[t], contexts[t])
            input_gates = torch.addmm(inputs[:, t], contexts[t], context_weight.t())
            cell.step(input_gates, projected[t], at(cell_states, t), at(cell_states, t + 1), activation[t])
        ctx.cell = cell
        ctx.set_materialize_grads(False)
        computed = (projected, activation, contexts, weights, *cell_states)
        ctx.save_for_backward(keys, states, mask, query_weight, energy, context_weight, hidden_weight, *computed)
        return hidden[1:].transpose(0, 1), weights.transpose(0, 1), *(part[-1] for part in cell_states[1:])

    @staticmethod
    @backward_without_autocast
    def backward(
        ctx: Any, d_output: Tensor | None, d_weights: Tensor | None, *d_final: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Backpropagate through time."""
        keys, states, mask, query_weight, energy, context_weight, hidden_weight, *computed = ctx.saved_tensors
        projected, activation, contexts, weights, *cell_states = computed
        cell, hidden = ctx.cell, cell_states[0]
        T, B, gates = projected.size(0), projected.size(1), hidden_weight.size(0)
        joint_weight = torch.cat([hidden_weight, query_weight])  # [GH + A, H]
        attention = additive_attention(keys, states, mask, energy)
        saved = cell.prepare_backward(projected, tuple(part[:-1] for part in cell_states), activation)
        d_input_gates = projected.new_empty(T, B, gates)
        d_projected = torch.empty_like(projected)
        d_contexts = torch.empty_like(contexts)
        d_weights = torch.zeros_like(weights) if d_weights is None else d_weights.transpose(0, 1).contiguous()
        zero = torch.zeros_like(hidden[0])
        d_state = (zero, *(zero if part is None else part.contiguous() for part in d_final))
        for t in reversed(range(T)):
            if d_output is not None:
                d_state = (d_state[0] + d_output[:, t], *d_state[1:])
            direct = cell.backward(d_state, projected[t], at(saved, t), d_input_gates[t], d_projected[t])
            torch.mm(d_input_gates[t], context_weight, out=d_contexts[t])
            attention.backward(projected[t], weights[t], d_contexts[t], d_weights[t], d_projected[t])
            d_state = (torch.addmm(direct[0], d_projected[t], joint_weight), *direct[1:])

        d_keys, d_energy = attention.sums()
        d_joint_weight = d_projected.flatten(0, 1).t() @ hidden[:-1].flatten(0, 1)
        return (
            None,
            d_input_gates.transpose(0, 1),
            d_keys,
            torch.bmm(weights.permute(1, 2, 0), d_contexts.transpose(0, 1)),
            None,
            d_input_gates.flatten(0, 1).t() @ contexts.flatten(0, 1),
            d_joint_weight[:gates],
            d_projected[..., :gates].sum(dim=(0, 1)),
            d_joint_weight[gates:],
            d_energy,
            *d_state,
        )
