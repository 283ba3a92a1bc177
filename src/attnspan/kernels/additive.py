"""Additive attention of one step and the same backwards, as the fused Bahdanau decoder asks for them.

Nothing here is needed to understand the model: :class:`~attnspan.models.attention.scores.AdditiveScore` is the
definition. Of
``asked`` [B, n], what was asked of the old state, the query is the last columns. ``d_x`` is the gradient of the loss
in x.
"""

from __future__ import annotations

import functools
import math
from typing import Protocol

import torch
from torch import Tensor

from attnspan.kernels.cells import is_for_rows, softmax_back


class AdditiveAttention(Protocol):
    """alpha_s = softmax_s(v^T tanh(q + k_s)), c = sum_s alpha_s h_s over the real positions s."""

    def attend(self, asked: Tensor, weights: Tensor, context: Tensor) -> None:
        """Write weights [B, S] and context [B, M]."""

    def back(self, asked: Tensor, weights: Tensor, d_context: Tensor, d_weights: Tensor, d_asked: Tensor) -> None:
        """Write the query's gradient, and add those of keys and v to the sums.

        Args:
            asked: as it was.
            weights: [B, S] as they were.
            d_context: [B, M].
            d_weights: [B, S] what comes to the weights by another way than the context.
            d_asked: as ``asked``; its last columns are written.
        """

    def sums(self) -> tuple[Tensor, Tensor]:
        """The gradients of keys [B, S, A] and v [A] by all that has come :meth:`back`."""


def additive_attention(keys: Tensor, states: Tensor, mask: Tensor, energy: Tensor) -> AdditiveAttention:
    """What is quickest for these.

    Args:
        keys: [B, S, A].
        states: [B, S, M], 0 in padding.
        mask: [B, S] bool.
        energy: [A] v.
    """
    # There exp(-2q - 2k) is exp(-2q) exp(-2k). If |2k| is at most two thirds of what an exponent may be, then where
    # exp(-2q) is out of bounds the sigmoid is 1 or 0 in all of its digits.
    if is_for_rows(keys) and float(keys.abs().max()) < math.log(torch.finfo(keys.dtype).max) / 3:
        from attnspan.kernels.compiled import RowAttention

        return RowAttention(keys, states, mask, energy)
    return TensorAttention(keys, states, mask, energy)


class TensorAttention:
    """See :class:`AdditiveAttention`: torch's operations, on any device and for any numbers."""

    def __init__(self, keys: Tensor, states: Tensor, mask: Tensor, energy: Tensor) -> None:
        self._twice_keys, self._states, self._padding = 2 * keys, states, ~mask
        self._energy = energy
        self._work = torch.empty_like(keys)

    @functools.cached_property
    def _sums(self) -> tuple[Tensor, Tensor]:
        """Of keys [B, S, A] and v [B, 1, A]; the way there needs none."""
        keys = self._twice_keys
        return torch.zeros_like(keys), keys.new_zeros(keys.size(0), 1, keys.size(2))

    def attend(self, asked: Tensor, weights: Tensor, context: Tensor) -> None:
        """See :class:`AdditiveAttention`."""
        # v^T tanh(x) = 2 v^T sigmoid(2x) - sum(v), and the softmax does not see the constant.
        scores = self._active(asked) @ (2 * self._energy)
        torch.softmax(scores.masked_fill_(self._padding, -torch.inf), dim=-1, out=weights)
        torch.bmm(weights.unsqueeze(1), self._states, out=context.unsqueeze(1))

    def back(self, asked: Tensor, weights: Tensor, d_context: Tensor, d_weights: Tensor, d_asked: Tensor) -> None:
        """See :class:`AdditiveAttention`."""
        # A row times a matrix: as a matrix times a column, the same product is eight times slower on a CPU.
        through_context = torch.bmm(d_context.unsqueeze(1), self._states.transpose(1, 2)).squeeze(1)
        d_scores = softmax_back(weights, through_context + d_weights)
        active = self._active(asked)
        d_keys, d_energy = self._sums
        d_energy.baddbmm_(d_scores.unsqueeze(1), active)
        slope = active.addcmul_(active, active, value=-1)  # tanh'(x) = 4 sigmoid(2x) (1 - sigmoid(2x))
        d_query = torch.bmm(d_scores.unsqueeze(1), slope).squeeze(1)
        torch.mul(d_query, 4 * self._energy, out=self._query(d_asked))
        d_keys.addcmul_(d_scores.unsqueeze(2), slope)

    def sums(self) -> tuple[Tensor, Tensor]:
        """See :class:`AdditiveAttention`."""
        d_keys, d_energy = self._sums
        return d_keys * (4 * self._energy), 2 * d_energy.sum(dim=(0, 1))

    def _active(self, asked: Tensor) -> Tensor:
        torch.add(self._twice_keys, (2 * self._query(asked)).unsqueeze(1), out=self._work)
        return self._work.sigmoid_()

    def _query(self, asked: Tensor) -> Tensor:
        return asked[:, -self._energy.size(0) :]
