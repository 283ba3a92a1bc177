"""Additive attention of one step forwards and backwards, for the unrolled Bahdanau decoder.

:class:`~attnspan.models.attention.scores.AdditiveScore` is the definition. ``projected`` [B, n] is the previous
state times the joint weight of gates and query; the query W_a s_{t-1} is its last A columns. ``d_x`` is the gradient
of the loss in x.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnspan.kernels.backend import uses_numba
from attnspan.kernels.cells import softmax_backward

_LANES = 16
"""Numbers of float32 in the longest register of a CPU."""


class AdditiveAttention(ABC):
    """alpha_s = softmax_s(v^T tanh(q + k_s)), c = sum_s alpha_s h_s over the real positions s.

    Args:
        keys: k.
        energy: v.
    """

    def __init__(self, keys: Float[Tensor, "B S A"], energy: Float[Tensor, " A"]) -> None:
        self._keys, self._energy = keys, energy

    @functools.cached_property
    def _sums(self) -> tuple[Tensor, Tensor]:
        """Of the gradients: of k [B, S, A] without 4 v, of v [B, 1, A] without 2. The forward pass needs neither."""
        B, S, A = self._keys.shape
        return self._keys.new_zeros(B, S, A), self._keys.new_zeros(B, 1, A)

    @abstractmethod
    def forward(
        self, projected: Float[Tensor, "B n"], weights: Float[Tensor, "B S"], context: Float[Tensor, "B M"]
    ) -> None:
        """Write weights and context."""

    @abstractmethod
    def backward(
        self,
        projected: Float[Tensor, "B n"],
        weights: Float[Tensor, "B S"],
        d_context: Float[Tensor, "B M"],
        d_weights: Float[Tensor, "B S"],
        d_projected: Float[Tensor, "B n"],
    ) -> None:
        """Write the query's gradient, the last A columns of ``d_projected``, and add those of keys and v to the sums.

        ``projected`` and ``weights`` are those of the forward pass; ``d_weights`` does not come through the context.
        """

    def sums(self) -> tuple[Float[Tensor, "B S A"], Float[Tensor, " A"]]:
        """The gradients of keys and v, summed over all calls of :meth:`backward`."""
        d_keys, d_energy = self._sums
        return d_keys * (4 * self._energy), 2 * d_energy.sum(dim=(0, 1))


def additive_attention(
    keys: Float[Tensor, "B S A"],
    states: Float[Tensor, "B S M"],
    mask: Bool[Tensor, "B S"],
    energy: Float[Tensor, " A"],
) -> AdditiveAttention:
    """The fastest form for k, h, which is 0 in padding, the mask, True at real positions, and v."""
    if has_key_factors(keys):
        return NumbaAttention(keys, states, mask, energy)
    return TorchAttention(keys, states, mask, energy)


def has_key_factors(keys: Float[Tensor, "B S A"]) -> bool:
    """Whether the compiled kernels can compute with these keys.

    They take exp(-2q - 2k) as exp(-2q) exp(-2k). If |2k| is at most two thirds of the largest exponent, the sigmoid is
    1 or 0 in all of its digits wherever exp(-2q) overflows.
    """
    return uses_numba(keys) and float(keys.abs().max()) < math.log(torch.finfo(keys.dtype).max) / 3


def key_factors(keys: Float[Tensor, "B S A"]) -> Float[Tensor, "B A P"]:
    """exp(-2k), one row a feature, with zeros behind the S positions: so that each row fills whole registers."""
    B, S, A = keys.shape
    factors = keys.new_zeros(B, A, S + -S % _LANES)
    factors[..., :S] = torch.exp(-2 * keys.detach()).transpose(1, 2)
    return factors


class NumbaAttention(AdditiveAttention):
    """For keys that :func:`has_key_factors`."""

    def __init__(self, keys: Tensor, states: Tensor, mask: Tensor, energy: Tensor) -> None:
        super().__init__(keys, energy)
        self._tensors = [part.detach().contiguous() for part in (states, mask, energy)]

    @functools.cached_property
    def _by_feature(self) -> Tensor:
        return key_factors(self._keys)

    @functools.cached_property
    def _by_position(self) -> Tensor:
        return torch.exp(-2 * self._keys.detach()).contiguous()

    def forward(self, projected: Tensor, weights: Tensor, context: Tensor) -> None:
        """See :class:`AdditiveAttention`."""
        from attnspan.kernels.compiled import attend

        attend(self._by_feature, *self._tensors, *(part.unsqueeze(1) for part in (projected, weights, context)))

    def backward(
        self, projected: Tensor, weights: Tensor, d_context: Tensor, d_weights: Tensor, d_projected: Tensor
    ) -> None:
        """See :class:`AdditiveAttention`."""
        from attnspan.kernels.compiled import attend_backward

        d_keys, d_energy = self._sums
        given = (self._by_position, *self._tensors, projected, weights, d_context, d_weights)
        attend_backward(*given, d_projected, d_keys, d_energy.squeeze(1))


class TorchAttention(AdditiveAttention):
    """Torch's operations, on any device and for any numbers."""

    def __init__(self, keys: Tensor, states: Tensor, mask: Tensor, energy: Tensor) -> None:
        super().__init__(keys, energy)
        self._twice_keys, self._states, self._padding = 2 * keys, states, ~mask
        self._buffer = torch.empty_like(keys)

    def forward(self, projected: Tensor, weights: Tensor, context: Tensor) -> None:
        """See :class:`AdditiveAttention`."""
        # v^T tanh(x) = 2 v^T sigmoid(2x) - sum(v), and the softmax does not depend on the constant.
        scores = self._sigmoid(projected) @ (2 * self._energy)
        torch.softmax(scores.masked_fill_(self._padding, -torch.inf), dim=-1, out=weights)
        torch.bmm(weights.unsqueeze(1), self._states, out=context.unsqueeze(1))

    def backward(
        self, projected: Tensor, weights: Tensor, d_context: Tensor, d_weights: Tensor, d_projected: Tensor
    ) -> None:
        """See :class:`AdditiveAttention`."""
        # A row times a matrix: as a matrix times a column, the same product is eight times slower on a CPU.
        through_context = torch.bmm(d_context.unsqueeze(1), self._states.transpose(1, 2)).squeeze(1)
        d_scores = softmax_backward(weights, through_context + d_weights)
        sigmoid = self._sigmoid(projected)
        d_keys, d_energy = self._sums
        d_energy.baddbmm_(d_scores.unsqueeze(1), sigmoid)
        slope = sigmoid.addcmul_(sigmoid, sigmoid, value=-1)  # tanh'(x) = 4 sigmoid(2x) (1 - sigmoid(2x))
        d_query = torch.bmm(d_scores.unsqueeze(1), slope).squeeze(1)
        torch.mul(d_query, 4 * self._energy, out=self._query(d_projected))
        d_keys.addcmul_(d_scores.unsqueeze(2), slope)

    def _sigmoid(self, projected: Tensor) -> Tensor:
        """sigmoid(2q + 2k), in the buffer."""
        torch.add(self._twice_keys, (2 * self._query(projected)).unsqueeze(1), out=self._buffer)
        return self._buffer.sigmoid_()

    def _query(self, projected: Tensor) -> Tensor:
        return projected[:, -self._energy.size(0) :]
