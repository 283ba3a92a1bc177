"""The Bahdanau decoder unrolled as one autograd function: the same numbers as the steps, in less time and memory.

Nothing here is needed to understand the model: :class:`~attnspan.models.decoders.bahdanau.BahdanauDecoder` is the
definition, and a test holds this file equal to it, gradients included. What is gained:

- No B x T x S x A activations are kept; the backward pass computes them again, one step at a time.
- Attention and its gradients go through the memory once a step (:mod:`attnspan.kernels.additive`).
- The query and the recurrent gates come from one matrix product, and each weight gradient from one product over all
  steps instead of a sum of T small ones.

``d_x`` is the gradient of the loss in x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attnspan.kernels.additive import additive_attention
from attnspan.kernels.cells import Cell, at, states_from, way_back


class FusedBahdanau(torch.autograd.Function):
    """s_t, a_t for all t, and an LSTM's last c, from the inputs' share of the gates, the memory and the first state."""

    @staticmethod
    def forward(
        ctx: Any,
        cell: type[Cell],
        inputs: Tensor,
        keys: Tensor,
        states: Tensor,
        mask: Tensor,
        context_weight: Tensor,
        hidden_weight: Tensor,
        hidden_bias: Tensor,
        query_weight: Tensor,
        energy: Tensor,
        *start: Tensor,
    ) -> tuple[Tensor, ...]:
        """Unroll.

        Args:
            ctx: autograd's.
            cell: which recurrence, of G gates.
            inputs: [B, T, GH] W_e y_{t-1} + b, the embedded tokens' share of the gates.
            keys: [B, S, A].
            states: [B, S, M], 0 in padding.
            mask: [B, S] bool.
            context_weight: [GH, M] the context's share of the gates.
            hidden_weight: [GH, H] the old state's share.
            hidden_bias: [GH].
            query_weight: [A, H] W_a.
            energy: [A] v_a.
            start: s_0, each part [B, H].

        Returns:
            hidden [B, T, H], weights [B, T, S], and the last c [B, H] if the cell has one.
        """
        B, T, gates = inputs.shape
        A = energy.size(0)
        joint = torch.cat([hidden_weight, query_weight]).t().contiguous()  # a fifth faster with one thread
        bias = torch.cat([hidden_bias, hidden_bias.new_zeros(A)])
        attention = additive_attention(keys, states, mask, energy)
        past = states_from(start, T)
        hidden = past[0]
        asked = inputs.new_empty(T, B, gates + A)  # of the old state: gates, and the query
        extra = torch.empty_like(hidden[1:])
        contexts = inputs.new_empty(T, B, states.size(2))
        weights = inputs.new_empty(T, B, keys.size(1))
        for t in range(T):
            torch.addmm(bias, hidden[t], joint, out=asked[t])
            attention.attend(asked[t], weights[t], contexts[t])
            given = torch.addmm(inputs[:, t], contexts[t], context_weight.t())
            cell.step(given, asked[t], at(past, t), at(past, t + 1), extra[t])
        ctx.cell = cell
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            keys,
            states,
            mask,
            query_weight,
            energy,
            context_weight,
            hidden_weight,
            asked,
            extra,
            contexts,
            weights,
            *past,
        )
        return hidden[1:].transpose(0, 1), weights.transpose(0, 1), *(part[-1] for part in past[1:])

    @staticmethod
    @way_back
    def backward(
        ctx: Any, d_output: Tensor | None, d_weights: Tensor | None, *d_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Walk back through time."""
        keys, states, mask, query_weight, energy, context_weight, hidden_weight, *rest = ctx.saved_tensors
        asked, extra, contexts, weights, *past = rest
        cell, hidden = ctx.cell, past[0]
        T, B, gates = asked.size(0), asked.size(1), hidden_weight.size(0)
        joint = torch.cat([hidden_weight, query_weight])  # [GH + A, H]
        attention = additive_attention(keys, states, mask, energy)
        needed = cell.needed(asked, tuple(part[:-1] for part in past), extra)
        d_given = asked.new_empty(T, B, gates)
        d_asked = torch.empty_like(asked)
        d_contexts = torch.empty_like(contexts)
        d_attended = torch.zeros_like(weights) if d_weights is None else d_weights.transpose(0, 1).contiguous()
        zero = torch.zeros_like(hidden[0])
        d_state = (zero, *(zero if part is None else part.contiguous() for part in d_last))
        for t in reversed(range(T)):
            if d_output is not None:
                d_state = (d_state[0] + d_output[:, t], *d_state[1:])
            direct = cell.back(d_state, asked[t], at(needed, t), d_given[t], d_asked[t])
            torch.mm(d_given[t], context_weight, out=d_contexts[t])
            attention.back(asked[t], weights[t], d_contexts[t], d_attended[t], d_asked[t])
            d_state = (torch.addmm(direct[0], d_asked[t], joint), *direct[1:])

        d_keys, d_energy = attention.sums()
        d_joint_weight = d_asked.flatten(0, 1).t() @ hidden[:-1].flatten(0, 1)
        return (
            None,
            d_given.transpose(0, 1),
            d_keys,
            torch.bmm(weights.permute(1, 2, 0), d_contexts.transpose(0, 1)),
            None,
            d_given.flatten(0, 1).t() @ contexts.flatten(0, 1),
            d_joint_weight[:gates],
            d_asked[..., :gates].sum(dim=(0, 1)),
            d_joint_weight[gates:],
            d_energy,
            *d_state,
        )
