"""The Luong decoder with input feeding unrolled as one autograd function: the same numbers as the steps, in less time.

:class:`~attnspan.models.decoders.luong.LuongDecoder` is the definition, and a test holds this file equal to it,
gradients included. Without input feeding no step waits for another, and the decoder's own parallel form is as fast.
What is gained here: the gradients of the memory, of the keys and of each weight matrix come from one product over all
steps, instead of a sum of T outer products of the full size.

The score is a product of query and key: score(h_t, j) = h_t^T k_j. ``d_x`` is the gradient of the loss in x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attnspan.kernels.cells import Cell, at, backward_without_autocast, softmax_backward, state_buffers


class FusedLuong(torch.autograd.Function):
    """h~_t, a_t for all t, and the final state.

    The arguments of ``apply``, of G gates:

    ==============  ==========  ======================================================
    cell                        which recurrence
    inputs          [B, T, GH]  W_e y_{t-1} + b, the embedded tokens' share of the gates
    keys            [B, S, H]
    states          [B, S, M]   0 in padding
    mask            [B, S]      bool
    fed_weight      [GH, H]     of h~_{t-1}
    hidden_weight   [GH, H]     of the gates
    hidden_bias     [GH]
    combine_weight  [H, M + H]  W_c
    initial         [B, H]      each part of h_0
    ==============  ==========  ======================================================

    It returns outputs h~ [B, T, H], weights [B, T, S], and the parts of the final state, [B, H] each.
    """

    @staticmethod
    def forward(ctx: Any, cell: Cell, inputs: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        """Unroll."""
        keys, states, mask, fed_weight, hidden_weight, hidden_bias, combine_weight, *initial = given
        B, T, _ = inputs.shape
        M, padding = states.size(2), ~mask
        cell_states = state_buffers(initial, T)
        hidden = cell_states[0]
        hidden_gates = torch.empty_like(inputs.transpose(0, 1), memory_format=torch.contiguous_format)
        activation = torch.empty_like(hidden[1:])
        weights = inputs.new_empty(T, B, keys.size(1))
        combined = inputs.new_empty(T, B, M + hidden.size(2))  # [c_t; h_t]
        outputs = torch.empty_like(hidden[1:])
        for t in range(T):
            input_gates = torch.addmm(inputs[:, t], outputs[t - 1], fed_weight.t()) if t else inputs[:, 0].contiguous()
            torch.addmm(hidden_bias, hidden[t], hidden_weight.t(), out=hidden_gates[t])
            cell.step(input_gates, hidden_gates[t], at(cell_states, t), at(cell_states, t + 1), activation[t])
            scores = torch.bmm(hidden[t + 1].unsqueeze(1), keys.transpose(1, 2)).squeeze(1)
            torch.softmax(scores.masked_fill_(padding, -torch.inf), dim=-1, out=weights[t])
            combined[t, :, :M] = torch.bmm(weights[t].unsqueeze(1), states).squeeze(1)
            combined[t, :, M:] = hidden[t + 1]
            torch.tanh(combined[t] @ combine_weight.t(), out=outputs[t])
        ctx.cell = cell
        ctx.set_materialize_grads(False)
        computed = (hidden_gates, activation, weights, combined, outputs, *cell_states)
        ctx.save_for_backward(keys, states, fed_weight, hidden_weight, combine_weight, *computed)
        return outputs.transpose(0, 1), weights.transpose(0, 1), *(part[-1] for part in cell_states)

    @staticmethod
    @backward_without_autocast
    def backward(
        ctx: Any, d_output: Tensor | None, d_weights: Tensor | None, *d_final: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Backpropagate through time."""
        keys, states, fed_weight, hidden_weight, combine_weight, *computed = ctx.saved_tensors
        hidden_gates, activation, weights, combined, outputs, *cell_states = computed
        cell, hidden, M = ctx.cell, cell_states[0], states.size(2)
        T, B, _ = hidden_gates.shape
        saved = cell.prepare_backward(hidden_gates, tuple(part[:-1] for part in cell_states), activation)
        d_input_gates, d_hidden_gates = torch.empty_like(hidden_gates), torch.empty_like(hidden_gates)
        d_tanh_inputs = torch.empty_like(outputs)  # of W_c [c; h]
        d_contexts = states.new_empty(T, B, M)
        d_scores = torch.empty_like(weights)
        zero = torch.zeros_like(hidden[0])
        d_state = tuple(zero if part is None else part.contiguous() for part in d_final)
        d_fed = zero
        for t in reversed(range(T)):
            d_tanh = d_fed if d_output is None else d_fed + d_output[:, t]
            torch.mul(d_tanh, 1 - outputs[t] * outputs[t], out=d_tanh_inputs[t])
            d_context, d_query = (d_tanh_inputs[t] @ combine_weight).split([M, hidden.size(2)], dim=1)
            d_contexts[t] = d_context
            d_weight = torch.bmm(d_context.unsqueeze(1), states.transpose(1, 2)).squeeze(1)
            if d_weights is not None:
                d_weight = d_weight + d_weights[:, t]
            d_scores[t] = softmax_backward(weights[t], d_weight)
            d_query = d_query + torch.bmm(d_scores[t].unsqueeze(1), keys).squeeze(1)
            d_state = (d_state[0] + d_query, *d_state[1:])
            direct = cell.backward(d_state, hidden_gates[t], at(saved, t), d_input_gates[t], d_hidden_gates[t])
            d_state = (torch.addmm(direct[0], d_hidden_gates[t], hidden_weight), *direct[1:])
            d_fed = d_input_gates[t] @ fed_weight

        return (
            None,
            d_input_gates.transpose(0, 1),
            torch.bmm(d_scores.permute(1, 2, 0), hidden[1:].transpose(0, 1)),
            torch.bmm(weights.permute(1, 2, 0), d_contexts.transpose(0, 1)),
            None,
            d_input_gates[1:].flatten(0, 1).t() @ outputs[:-1].flatten(0, 1),  # h~_0 = 0
            d_hidden_gates.flatten(0, 1).t() @ hidden[:-1].flatten(0, 1),
            d_hidden_gates.sum(dim=(0, 1)),
            d_tanh_inputs.flatten(0, 1).t() @ combined.flatten(0, 1),
            *d_state,
        )
