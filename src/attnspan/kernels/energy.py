"""v^T tanh(k_s + q + W f_s) of one step, without keeping its B x S x A activations for the backward pass.

Unrolled over T steps these would be the largest tensors of training. The backward pass computes them again.
``d_x`` is the gradient of the loss in x.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnspan.kernels.cells import backward_without_autocast


def tanh_energy(
    features: Float[Tensor, "B S k"],
    weight: Float[Tensor, "A k"],
    query: Float[Tensor, "B A"],
    energy: Float[Tensor, " A"],
    keys: Float[Tensor, "B S A"] | None = None,
) -> Float[Tensor, "B S"]:
    """e_s for features f, W, q, v and keys k, which are 0 if there are none; in the precision of the weights."""
    with torch.autocast(energy.device.type, enabled=False):
        given = (None if part is None else part.to(energy.dtype) for part in (features, weight, query, energy, keys))
        found: Tensor = _TanhEnergy.apply(*given)
    return found


class _TanhEnergy(torch.autograd.Function):
    """The same."""

    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> Tensor:
        """Compute e [B, S]."""
        ctx.save_for_backward(*given)
        energy = given[3]
        return (_sigmoid(*given) @ (2 * energy)) - energy.sum()  # tanh x = 2 sigmoid(2x) - 1

    @staticmethod
    @backward_without_autocast
    def backward(ctx: Any, d_scores: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of features, W, q, v and keys."""
        features, weight, query, energy, keys = ctx.saved_tensors
        sigmoid = _sigmoid(features, weight, query, energy, keys)
        flat = sigmoid.flatten(0, 1)
        d_energy = 2 * (d_scores.reshape(1, -1) @ flat).squeeze(0) - d_scores.sum()
        slope = sigmoid.addcmul_(sigmoid, sigmoid, value=-1).mul_(d_scores.unsqueeze(2))  # a quarter of tanh'
        times = 4 * energy
        # Products with few rows: as the same ones with few columns, they are three to four times slower on a CPU.
        d_features = (torch.mm((times.unsqueeze(1) * weight).t(), flat.t())).t().reshape(features.shape)
        d_weight = torch.mm(features.flatten(0, 1).t(), flat).t() * times.unsqueeze(1)
        d_query = slope.sum(dim=1) * times
        return d_features, d_weight, d_query, d_energy, None if keys is None else slope * times


def _sigmoid(features: Tensor, weight: Tensor, query: Tensor, energy: Tensor, keys: Tensor | None) -> Tensor:
    """sigmoid(2 (k_s + q + W f_s)): [B, S, A]."""
    inner = torch.matmul(features, (2 * weight).t())
    inner = inner if keys is None else inner.add_(keys, alpha=2)
    return inner.add_(2 * query.unsqueeze(1)).sigmoid_()
