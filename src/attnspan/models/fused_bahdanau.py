"""The Bahdanau decoder unrolled as one autograd function: the same numbers as the steps, in less time and memory.

Nothing here is needed to understand the model: :class:`~attnspan.models.bahdanau.BahdanauDecoder` is the definition,
and a test holds this file equal to it, gradients included. What is gained:

- No B x T x S x A activations are kept; the backward pass computes them again, one step at a time.
- tanh x = 2 sigmoid(2x) - 1, and sigmoid(2(q + k)) = 1 / (1 + exp(-2q) exp(-2k)) needs no exponential of S x A numbers
  at every step.
- A few rows of the batch at a time, so that what is computed from the keys is still in the cache when it is needed.
- The query and the recurrent gates come from one matrix product, and each weight gradient from one product over all
  steps instead of a sum of T small ones.

``d_x`` is the gradient of the loss in x.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
        activations = Activations(keys)
        past = states_from(start, T)
        hidden = past[0]
        kept = inputs.new_empty(T, B, cell.kept * hidden.size(2))
        queries = inputs.new_empty(T, B, A)
        contexts = inputs.new_empty(T, B, states.size(2))
        weights = inputs.new_empty(T, B, keys.size(1))
        for t in range(T):
            recurrent, query = torch.addmm(bias, hidden[t], joint).split([gates, A], dim=1)
            queries[t] = query
            # v^T tanh(x) = 2 v^T sigmoid(2x) - sum(v), and the softmax does not see the constant.
            scores = torch.cat([some @ (2 * energy) for some in activations.at(query)])
            torch.softmax(scores.masked_fill_(padding, -torch.inf), dim=-1, out=weights[t])
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
        activations = Activations(keys)
        d_given = kept.new_empty(T, B, gates)
        d_joint = kept.new_empty(T, B, joint.size(0))  # of g, and of the query
        d_contexts = torch.empty_like(contexts)
        d_keys = torch.zeros_like(keys)
        d_queries = torch.empty_like(queries)
        d_energies = keys.new_zeros(B, 1, energy.size(0))
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

            rows = (d_scores.unsqueeze(1), d_queries[t].unsqueeze(1), d_energies, d_keys)
            for some, *parts in zip(activations.at(queries[t]), *map(activations.split, rows), strict=True):
                d_score, d_query, d_energy, d_key = parts
                slope = activations.slope(some)
                d_energy += torch.bmm(d_score, some)
                torch.bmm(d_score, slope, out=d_query)
                d_key.addcmul_(d_score.transpose(1, 2), slope)
            torch.mul(d_queries[t], 4 * energy, out=d_joint[t, :, gates:])

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
            2 * d_energies.sum(dim=(0, 1)),
            *d_state,
        )


class Activations:
    """sigmoid(2(q + k)), from which tanh(q + k) follows, at one query after another and in a few rows at a time.

    Args:
        keys: [B, S, A].

    Attributes:
        factored: 1 / (1 + exp(-2q) exp(-2k)) is what is computed.
    """

    BUFFER = 2**21
    """Bytes of the rows taken at a time; with as many for the slope they stay in the cache."""

    def __init__(self, keys: Tensor) -> None:
        on_cpu = keys.device.type == "cpu"  # elsewhere exponentials are cheap, and looking at numbers makes a GPU wait
        self._rows = max(1, self.BUFFER // (keys[0].numel() * keys.element_size())) if on_cpu else keys.size(0)
        # If |2k| is at most two thirds of what an exponential may be, then where exp(-2q) becomes 0 or infinite the
        # result is 1 or 0 to more digits than there are.
        self.factored = on_cpu and float(keys.abs().max()) < math.log(torch.finfo(keys.dtype).max) / 3
        self._keys = self.split(torch.exp(-2 * keys) if self.factored else 2 * keys)
        self._work, self._slope = torch.empty_like(self._keys[0]), torch.empty_like(self._keys[0])
        self._one = keys.new_ones(())

    def split(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Cut a tensor [B, ...] into the rows that are taken at a time, [b, ...]."""
        return tensor.split(self._rows)

    def at(self, query: Tensor) -> Iterator[Tensor]:
        """Yield the activations [b, S, A] at a query [B, A]; each is gone when the next one comes."""
        queries = torch.exp(-2 * query) if self.factored else 2 * query
        for some_keys, some_queries in zip(self._keys, self.split(queries.unsqueeze(1)), strict=True):
            out = self._work[: len(some_keys)]
            if self.factored:
                torch.addcmul(self._one, some_keys, some_queries, out=out)
                yield torch.reciprocal(out, out=out)
            else:
                torch.add(some_keys, some_queries, out=out)
                yield torch.sigmoid(out, out=out)

    def slope(self, some: Tensor) -> Tensor:
        """A quarter of tanh'(q + k), for tanh'(x) = 4 sigmoid(2x) (1 - sigmoid(2x))."""
        return torch.addcmul(some, some, some, value=-1, out=self._slope[: len(some)])
