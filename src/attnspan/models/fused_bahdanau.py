"""The Bahdanau decoder unrolled as one autograd function: the same numbers as the steps, in less time and memory.

Nothing here is needed to understand the model: :class:`~attnspan.models.bahdanau.BahdanauDecoder` is the definition,
and a test holds this file equal to it, gradients included. What is gained:

- No B x T x S x A activations are kept; the backward pass computes them again, one step at a time.
- tanh x = 2 sigmoid(2x) - 1, and sigmoid(2(q + k)) = 1 / (1 + exp(-2q) exp(-2k)) needs no exponential of S x A numbers
  at every step.
- The query and the recurrent gates come from one matrix product, and each weight gradient from one product over all
  steps instead of a sum of T small ones.

``d_x`` is the gradient of the loss in x.
"""

from __future__ import annotations

import math
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
        joint = torch.cat([hidden_weight, query_weight]).t()
        bias = torch.cat([hidden_bias, hidden_bias.new_zeros(A)])
        padding, twice_energy = ~mask, 2 * energy
        activations = Activations(keys)
        past = states_from(start, T)
        hidden = past[0]
        asked = inputs.new_empty(T, B, gates + A)  # of the old state: gates, and the query
        extra = torch.empty_like(hidden[1:])
        contexts = inputs.new_empty(T, B, states.size(2))
        weights = inputs.new_empty(T, B, keys.size(1))
        for t in range(T):
            torch.addmm(bias, hidden[t], joint, out=asked[t])
            # v^T tanh(x) = 2 v^T sigmoid(2x) - sum(v), and the softmax does not see the constant.
            scores = activations.at(asked[t, :, gates:]) @ twice_energy
            torch.softmax(scores.masked_fill_(padding, -torch.inf), dim=-1, out=weights[t])
            torch.bmm(weights[t].unsqueeze(1), states, out=contexts[t].unsqueeze(1))
            given = torch.addmm(inputs[:, t], contexts[t], context_weight.t())
            cell.step(given, asked[t, :, :gates], at(past, t), at(past, t + 1), extra[t])
        ctx.cell = cell
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            keys, states, query_weight, energy, context_weight, hidden_weight, asked, extra, contexts, weights, *past
        )
        return hidden[1:].transpose(0, 1), weights.transpose(0, 1), *(part[-1] for part in past[1:])

    @staticmethod
    def backward(
        ctx: Any, d_output: Tensor | None, d_weights: Tensor | None, *d_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Walk back through time."""
        keys, states, query_weight, energy, context_weight, hidden_weight, asked, extra, contexts, weights, *past = (
            ctx.saved_tensors
        )
        cell, hidden = ctx.cell, past[0]
        T, B, gates = asked.size(0), asked.size(1), hidden_weight.size(0)
        joint = torch.cat([hidden_weight, query_weight])  # [GH + A, H]
        activations = Activations(keys)
        recurrent = asked[..., :gates]
        slopes = cell.slopes(recurrent, tuple(part[:-1] for part in past), extra)
        d_given = asked.new_empty(T, B, gates)
        d_joint = torch.empty_like(asked)
        d_contexts = torch.empty_like(contexts)
        d_keys = torch.zeros_like(keys)
        d_energy = keys.new_zeros(B, 1, energy.size(0))
        d_query = torch.empty_like(d_energy)
        four_energies = 4 * energy
        zero = torch.zeros_like(hidden[0])
        d_state = (zero, *(zero if part is None else part for part in d_last))
        for t in reversed(range(T)):
            if d_output is not None:
                d_state = (d_state[0] + d_output[:, t], *d_state[1:])
            direct = cell.back(d_state, recurrent[t], slopes[t], d_given[t], d_joint[t, :, :gates])
            torch.mm(d_given[t], context_weight, out=d_contexts[t])

            # A row times a matrix: as a matrix times a column, the same product is eight times slower on a CPU.
            d_weight = torch.bmm(d_contexts[t].unsqueeze(1), states.transpose(1, 2)).squeeze(1)
            if d_weights is not None:
                d_weight = d_weight + d_weights[:, t]
            d_scores = softmax_back(weights[t], d_weight)

            active = activations.at(asked[t, :, gates:])
            d_energy.baddbmm_(d_scores.unsqueeze(1), active)
            slope = active.addcmul_(active, active, value=-1)  # tanh'(x) = 4 sigmoid(2x) (1 - sigmoid(2x))
            torch.bmm(d_scores.unsqueeze(1), slope, out=d_query)
            torch.mul(d_query.squeeze(1), four_energies, out=d_joint[t, :, gates:])
            d_keys.addcmul_(d_scores.unsqueeze(2), slope)

            d_state = (torch.addmm(direct[0], d_joint[t], joint), *direct[1:])

        d_keys *= four_energies
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
            2 * d_energy.sum(dim=(0, 1)),
            *d_state,
        )


class Activations:
    """sigmoid(2(q + k)), from which tanh(q + k) follows, at one query after another.

    Args:
        keys: [B, S, A].

    Attributes:
        factored: 1 / (1 + exp(-2q) exp(-2k)) is what is computed.
    """

    def __init__(self, keys: Tensor) -> None:
        # Elsewhere exponentials are cheap, and looking at numbers makes a GPU wait. If |2k| is at most two thirds of
        # what an exponent may be, then where exp(-2q) is 0 or infinite the result is 1 or 0 in all of its digits.
        limit = math.log(torch.finfo(keys.dtype).max) / 3
        self.factored = keys.device.type == "cpu" and float(keys.detach().abs().max()) < limit
        self._keys = torch.exp(-2 * keys) if self.factored else 2 * keys
        self._work = torch.empty_like(keys)
        self._one = keys.new_ones(())

    def at(self, query: Tensor) -> Tensor:
        """Activations [B, S, A] at a query [B, A], in a buffer that is the caller's until the next call."""
        if self.factored:
            torch.addcmul(self._one, self._keys, torch.exp(-2 * query).unsqueeze(1), out=self._work)
            return self._work.reciprocal_()
        torch.add(self._keys, (2 * query).unsqueeze(1), out=self._work)
        return self._work.sigmoid_()
