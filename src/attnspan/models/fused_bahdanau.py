"""The Bahdanau decoder unrolled as one autograd function: the same numbers as the steps, in less time and memory.

Nothing here is needed to understand the model: :class:`~attnspan.models.bahdanau.BahdanauDecoder` is the definition,
and a test holds this file equal to it, gradients included. What is gained:

- No B x T x S x A activations are kept; the backward pass computes them again, one step at a time.
- tanh x = 2 sigmoid(2x) - 1, because sigmoid is several times cheaper on a CPU.
- The query and the recurrent gates come from one matrix product, and each weight gradient from one product over all
  steps instead of a sum of T small ones.

``d_x`` is the gradient of the loss in x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attnspan.models.fused_cells import Cell, at, softmax_back, states_from


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
        joint = torch.cat([hidden_weight, query_weight]).t()  # [H, GH + A]
        bias = torch.cat([hidden_bias, hidden_bias.new_zeros(A)])
        padding = ~mask
        twice_keys = 2 * keys
        past = states_from(start, T)
        hidden = past[0]
        kept = inputs.new_empty(T, B, cell.kept * hidden.size(2))
        queries = inputs.new_empty(T, B, A)
        contexts = inputs.new_empty(T, B, states.size(2))
        weights = inputs.new_empty(T, B, keys.size(1))
        work = torch.empty_like(keys)
        for t in range(T):
            recurrent, query = torch.addmm(bias, hidden[t], joint).split([gates, A], dim=1)
            queries[t] = query
            _sigmoid_of_twice(query, twice_keys, out=work)
            # v^T tanh(x) = 2 v^T sigmoid(2x) - sum(v), and the softmax does not see the constant.
            scores = (work @ (2 * energy)).masked_fill_(padding, -torch.inf)
            torch.softmax(scores, dim=-1, out=weights[t])
            torch.bmm(weights[t].unsqueeze(1), states, out=contexts[t].unsqueeze(1))
            given = torch.addmm(inputs[:, t], contexts[t], context_weight.t())
            cell.step(given, recurrent, at(past, t), at(past, t + 1), kept[t])
        ctx.cell = cell
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            keys, states, query_weight, energy, context_weight, hidden_weight, kept, queries, contexts, weights, *past
        )
        return hidden[1:].transpose(0, 1), weights.transpose(0, 1), *(part[-1] for part in past[1:])

    @staticmethod
    def backward(
        ctx: Any, d_output: Tensor | None, d_weights: Tensor | None, *d_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Walk back through time."""
        keys, states, query_weight, energy, context_weight, hidden_weight, kept, queries, contexts, weights, *past = (
            ctx.saved_tensors
        )
        cell, hidden = ctx.cell, past[0]
        T, B, gates = kept.size(0), kept.size(1), hidden_weight.size(0)
        joint = torch.cat([hidden_weight, query_weight])  # [GH + A, H]
        twice_keys = 2 * keys
        work, slope = torch.empty_like(keys), torch.empty_like(keys)
        d_given = kept.new_empty(T, B, gates)
        d_joint = kept.new_empty(T, B, joint.size(0))  # of g, and of the query
        d_contexts = torch.empty_like(contexts)
        d_keys = torch.zeros_like(keys)
        d_energy = torch.zeros_like(energy)
        zero = torch.zeros_like(hidden[0])
        d_state = (zero, *(zero if part is None else part for part in d_last))
        for t in reversed(range(T)):
            if d_output is not None:
                d_state = (d_state[0] + d_output[:, t], *d_state[1:])
            direct = cell.back(d_state, at(past, t), kept[t], d_given[t], d_joint[t, :, :gates])
            torch.mm(d_given[t], context_weight, out=d_contexts[t])

            # A row times a matrix: as a matrix times a column, the same product is eight times slower on a CPU.
            d_weight = torch.bmm(d_contexts[t].unsqueeze(1), states.transpose(1, 2)).squeeze(1)
            if d_weights is not None:
                d_weight = d_weight + d_weights[:, t]
            d_scores = softmax_back(weights[t], d_weight)

            _sigmoid_of_twice(queries[t], twice_keys, out=work)
            torch.addcmul(work, work, work, value=-1, out=slope)  # tanh'(x) = 4 sigmoid(2x) (1 - sigmoid(2x))
            d_energy += 2 * torch.bmm(d_scores.unsqueeze(1), work).sum(dim=(0, 1))
            d_joint[t, :, gates:] = 4 * energy * torch.bmm(d_scores.unsqueeze(1), slope).squeeze(1)
            d_keys.addcmul_(d_scores.unsqueeze(2), slope)

            d_state = (torch.addmm(direct[0], d_joint[t], joint), *direct[1:])

        d_keys *= 4 * energy
        d_joint_weight = d_joint.flatten(0, 1).t() @ hidden[:-1].flatten(0, 1)
        return (
            None,
            d_given.transpose(0, 1),
            d_keys,
            torch.bmm(weights.permute(1, 2, 0), d_contexts.transpose(0, 1)),
            None,
            d_given.flatten(0, 1).t() @ contexts.flatten(0, 1),
            d_joint_weight[:gates],
            d_joint[..., :gates].sum(dim=(0, 1)),
            d_joint_weight[gates:],
            d_energy,
            *d_state,
        )


def _sigmoid_of_twice(query: Tensor, twice_keys: Tensor, *, out: Tensor) -> None:
    """Fill ``out`` with sigmoid(2 (q + k)): query [B, A], twice_keys [B, S, A]."""
    torch.add(twice_keys, (2 * query).unsqueeze(1), out=out)
    torch.sigmoid(out, out=out)
