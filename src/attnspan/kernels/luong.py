"""The Luong decoder with input feeding unrolled as one autograd function: the same numbers as the steps, in less time.

Nothing here is needed to understand the model: :class:`~attnspan.models.decoders.luong.LuongDecoder` is the definition,
and a
test holds this file equal to it, gradients included. Without input feeding no step waits for another, and the decoder's
own parallel path is as fast. What is gained here: the gradients of the memory, of the keys and of each weight matrix
come from one product over all steps, instead of a sum of T outer products that each fill the whole of it.

The score is a product of query and key: score(h_t, j) = h_t^T k_j. ``d_x`` is the gradient of the loss in x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attnspan.kernels.cells import Cell, at, softmax_back, states_from, way_back


class FusedLuong(torch.autograd.Function):
    """h~_t, a_t for all t, and the last state, from the inputs' share of the gates, the memory and the first state."""

    @staticmethod
    def forward(
        ctx: Any,
        cell: type[Cell],
        inputs: Tensor,
        keys: Tensor,
        states: Tensor,
        mask: Tensor,
        fed_weight: Tensor,
        hidden_weight: Tensor,
        hidden_bias: Tensor,
        combine_weight: Tensor,
        *start: Tensor,
    ) -> tuple[Tensor, ...]:
        """Unroll.

        Args:
            ctx: autograd's.
            cell: which recurrence, of G gates.
            inputs: [B, T, GH] W_e y_{t-1} + b, the embedded tokens' share of the gates.
            keys: [B, S, H].
            states: [B, S, M], 0 in padding.
            mask: [B, S] bool.
            fed_weight: [GH, H] the share of h~_{t-1}.
            hidden_weight: [GH, H] the old state's share.
            hidden_bias: [GH].
            combine_weight: [H, M + H] W_c.
            start: h_0, each part [B, H].

        Returns:
            outputs h~ [B, T, H], weights [B, T, S], and the parts of the last state, [B, H] each.
        """
        B, T, _ = inputs.shape
        M, padding = states.size(2), ~mask
        past = states_from(start, T)
        hidden = past[0]
        gates = torch.empty_like(inputs.transpose(0, 1), memory_format=torch.contiguous_format)
        extra = torch.empty_like(hidden[1:])
        weights = inputs.new_empty(T, B, keys.size(1))
        answers = inputs.new_empty(T, B, M + hidden.size(2))  # [c_t; h_t]
        outputs = torch.empty_like(hidden[1:])
        for t in range(T):
            given = torch.addmm(inputs[:, t], outputs[t - 1], fed_weight.t()) if t else inputs[:, 0].contiguous()
            torch.addmm(hidden_bias, hidden[t], hidden_weight.t(), out=gates[t])
            cell.step(given, gates[t], at(past, t), at(past, t + 1), extra[t])
            scores = torch.bmm(hidden[t + 1].unsqueeze(1), keys.transpose(1, 2)).squeeze(1)
            torch.softmax(scores.masked_fill_(padding, -torch.inf), dim=-1, out=weights[t])
            answers[t, :, :M] = torch.bmm(weights[t].unsqueeze(1), states).squeeze(1)
            answers[t, :, M:] = hidden[t + 1]
            torch.tanh(answers[t] @ combine_weight.t(), out=outputs[t])
        ctx.cell = cell
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            keys, states, fed_weight, hidden_weight, combine_weight, gates, extra, weights, answers, outputs, *past
        )
        return outputs.transpose(0, 1), weights.transpose(0, 1), *(part[-1] for part in past)

    @staticmethod
    @way_back
    def backward(
        ctx: Any, d_output: Tensor | None, d_weights: Tensor | None, *d_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Walk back through time."""
        keys, states, fed_weight, hidden_weight, combine_weight, gates, extra, weights, answers, outputs, *past = (
            ctx.saved_tensors
        )
        cell, hidden, M = ctx.cell, past[0], states.size(2)
        T, B, _ = gates.shape
        needed = cell.needed(gates, tuple(part[:-1] for part in past), extra)
        d_given, d_recurrent = torch.empty_like(gates), torch.empty_like(gates)
        d_sums = torch.empty_like(outputs)  # of W_c [c; h]
        d_contexts = states.new_empty(T, B, M)
        d_scores = torch.empty_like(weights)
        zero = torch.zeros_like(hidden[0])
        d_state = tuple(zero if part is None else part.contiguous() for part in d_last)
        d_fed = zero
        for t in reversed(range(T)):
            d_tanh = d_fed if d_output is None else d_fed + d_output[:, t]
            torch.mul(d_tanh, 1 - outputs[t] * outputs[t], out=d_sums[t])
            d_context, d_asking = (d_sums[t] @ combine_weight).split([M, hidden.size(2)], dim=1)
            d_contexts[t] = d_context
            d_weight = torch.bmm(d_context.unsqueeze(1), states.transpose(1, 2)).squeeze(1)
            if d_weights is not None:
                d_weight = d_weight + d_weights[:, t]
            d_scores[t] = softmax_back(weights[t], d_weight)
            d_asking = d_asking + torch.bmm(d_scores[t].unsqueeze(1), keys).squeeze(1)
            d_state = (d_state[0] + d_asking, *d_state[1:])
            direct = cell.back(d_state, gates[t], at(needed, t), d_given[t], d_recurrent[t])
            d_state = (torch.addmm(direct[0], d_recurrent[t], hidden_weight), *direct[1:])
            d_fed = d_given[t] @ fed_weight

        return (
            None,
            d_given.transpose(0, 1),
            torch.bmm(d_scores.permute(1, 2, 0), hidden[1:].transpose(0, 1)),
            torch.bmm(weights.permute(1, 2, 0), d_contexts.transpose(0, 1)),
            None,
            d_given[1:].flatten(0, 1).t() @ outputs[:-1].flatten(0, 1),  # h~_0 = 0
            d_recurrent.flatten(0, 1).t() @ hidden[:-1].flatten(0, 1),
            d_recurrent.sum(dim=(0, 1)),
            d_sums.flatten(0, 1).t() @ answers.flatten(0, 1),
            *d_state,
        )
