"""The Bahdanau decoder unrolled as one autograd function: the same numbers as the steps, in less time and memory.

Nothing here is needed to understand the model: :class:`~attnspan.models.bahdanau.BahdanauDecoder` is the definition,
and a test holds this file equal to it, gradients included. What is gained:

- No B x T x S x A activations are kept; the backward pass computes them again, one step at a time.
- tanh x = 2 sigmoid(2x) - 1, because sigmoid is several times cheaper on a CPU.
- The query and the recurrent gates come from one matrix product, and each weight gradient from one product over all
  steps instead of a sum of T small ones.

Letters: q query, k keys, v energy vector, a weights, c context; r, z, n the reset, update and new gates of the GRU as
torch writes them, s_t = (1 - z) n + z s_{t-1} with n = tanh(i_n + r g_n). ``d_x`` is the gradient of the loss in x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class FusedBahdanau(torch.autograd.Function):
    """s_t, a_t for all t, from the inputs' share of the gates, the memory and s_0."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        start: Tensor,
        keys: Tensor,
        states: Tensor,
        mask: Tensor,
        query_weight: Tensor,
        energy: Tensor,
        context_weight: Tensor,
        hidden_weight: Tensor,
        hidden_bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Unroll.

        Args:
            ctx: autograd's.
            inputs: [B, T, 3H] W_e y_{t-1} + b, the embedded tokens' share of the gates.
            start: [B, H] s_0.
            keys: [B, S, A].
            states: [B, S, M], 0 in padding.
            mask: [B, S] bool.
            query_weight: [A, H] W_a.
            energy: [A] v_a.
            context_weight: [3H, M] the context's share of the gates.
            hidden_weight: [3H, H] the old state's share.
            hidden_bias: [3H].

        Returns:
            hidden [B, T, H] and weights [B, T, S].
        """
        B, T, _ = inputs.shape
        H, A = start.size(1), energy.size(0)
        joint = torch.cat([hidden_weight, query_weight]).t()  # [H, 3H + A]
        bias = torch.cat([hidden_bias, hidden_bias.new_zeros(A)])
        padding = ~mask
        twice_keys = 2 * keys
        hidden = inputs.new_empty(T + 1, B, H)
        gates = inputs.new_empty(T, B, 4 * H)  # r, z, n, g_n
        queries = inputs.new_empty(T, B, A)
        contexts = inputs.new_empty(T, B, states.size(2))
        weights = inputs.new_empty(T, B, keys.size(1))
        work = torch.empty_like(keys)
        hidden[0] = start
        for t in range(T):
            recurrent, query = torch.addmm(bias, hidden[t], joint).split([3 * H, A], dim=1)
            queries[t] = query
            _sigmoid_of_twice(query, twice_keys, out=work)
            # v^T tanh(x) = 2 v^T sigmoid(2x) - sum(v), and the softmax does not see the constant.
            scores = (work @ (2 * energy)).masked_fill_(padding, -torch.inf)
            torch.softmax(scores, dim=-1, out=weights[t])
            torch.bmm(weights[t].unsqueeze(1), states, out=contexts[t].unsqueeze(1))
            given = torch.addmm(inputs[:, t], contexts[t], context_weight.t())
            reset, update = torch.sigmoid(given[:, : 2 * H] + recurrent[:, : 2 * H]).chunk(2, dim=1)
            new = torch.tanh(torch.addcmul(given[:, 2 * H :], reset, recurrent[:, 2 * H :]))
            torch.cat([reset, update, new, recurrent[:, 2 * H :]], dim=1, out=gates[t])
            torch.lerp(new, hidden[t], update, out=hidden[t + 1])
        ctx.save_for_backward(
            keys, states, query_weight, energy, context_weight, hidden_weight, hidden, gates, queries, contexts, weights
        )
        return hidden[1:].transpose(0, 1), weights.transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, d_output: Tensor, d_weights: Tensor | None) -> tuple[Tensor | None, ...]:
        """Walk back through time; see the module's docstring for the letters."""
        (
            keys,
            states,
            query_weight,
            energy,
            context_weight,
            hidden_weight,
            hidden,
            gates,
            queries,
            contexts,
            weights,
        ) = ctx.saved_tensors
        T, B, H = hidden.size(0) - 1, hidden.size(1), hidden.size(2)
        joint = torch.cat([hidden_weight, query_weight])  # [3H + A, H]
        twice_keys = 2 * keys
        work, slope = torch.empty_like(keys), torch.empty_like(keys)
        d_given = torch.empty_like(gates[..., : 3 * H])  # of i_r, i_z, i_n
        d_joint = gates.new_empty(T, B, joint.size(0))  # of g_r, g_z, g_n, q
        d_contexts = torch.empty_like(contexts)
        d_keys = torch.zeros_like(keys)
        d_energy = torch.zeros_like(energy)
        d_hidden = torch.zeros_like(hidden[0])
        for t in reversed(range(T)):
            reset, update, new, recurrent_new = gates[t].chunk(4, dim=1)
            d_hidden = d_hidden + d_output[:, t]
            d_new = d_hidden * (1 - update) * (1 - new * new)
            d_reset = d_new * recurrent_new * reset * (1 - reset)
            d_update = d_hidden * (hidden[t] - new) * update * (1 - update)
            torch.cat([d_reset, d_update, d_new], dim=1, out=d_given[t])
            torch.mm(d_given[t], context_weight, out=d_contexts[t])

            # A row times a matrix: as a matrix times a column, the same product is eight times slower on a CPU.
            d_weight = torch.bmm(d_contexts[t].unsqueeze(1), states.transpose(1, 2)).squeeze(1)
            if d_weights is not None:
                d_weight = d_weight + d_weights[:, t]
            weighted = weights[t] * d_weight
            d_scores = weighted - weights[t] * weighted.sum(dim=1, keepdim=True)  # 0 in padding, as the weights are

            _sigmoid_of_twice(queries[t], twice_keys, out=work)
            torch.addcmul(work, work, work, value=-1, out=slope)  # tanh'(x) = 4 sigmoid(2x) (1 - sigmoid(2x))
            d_energy += 2 * torch.bmm(d_scores.unsqueeze(1), work).sum(dim=(0, 1))
            d_query = 4 * energy * torch.bmm(d_scores.unsqueeze(1), slope).squeeze(1)
            d_keys.addcmul_(d_scores.unsqueeze(2), slope)

            torch.cat([d_reset, d_update, d_new * reset, d_query], dim=1, out=d_joint[t])
            d_hidden = torch.addmm(d_hidden * update, d_joint[t], joint)

        d_keys *= 4 * energy
        d_joint_weight = d_joint.flatten(0, 1).t() @ hidden[:-1].flatten(0, 1)
        d_context_weight = d_given.flatten(0, 1).t() @ contexts.flatten(0, 1)
        d_states = torch.bmm(weights.permute(1, 2, 0), d_contexts.transpose(0, 1))
        return (
            d_given.transpose(0, 1),
            d_hidden,
            d_keys,
            d_states,
            None,
            d_joint_weight[3 * H :],
            d_energy,
            d_context_weight,
            d_joint_weight[: 3 * H],
            d_joint[..., : 3 * H].sum(dim=(0, 1)),
        )


def _sigmoid_of_twice(query: Tensor, twice_keys: Tensor, *, out: Tensor) -> None:
    """Fill ``out`` with sigmoid(2 (q + k)): query [B, A], twice_keys [B, S, A]."""
    torch.add(twice_keys, (2 * query).unsqueeze(1), out=out)
    torch.sigmoid(out, out=out)
