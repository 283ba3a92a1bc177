"""Sparsemax and alpha-entmax: maps from scores to weights that give exactly 0 to what fits badly.

alpha-entmax(z) = argmax_p p^T z + H_alpha(p), over the simplex, with Tsallis' entropy H_alpha  (Peters et al. 2019,
eq. 10). It is p_j = [(alpha - 1) z_j - tau]_+^(1 / (alpha - 1)), with the one tau for which p sums to 1. In the limit
alpha = 1 it is softmax; alpha = 2 is sparsemax (Martins and Astudillo 2016).

The functions work along the last dimension, in float32 at least. A score of -inf has weight 0 and gradient 0. One score
of each row must be finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def in_float32(scores: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """In this precision at least: in bfloat16 weights sum to 1 within some hundredths only."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def sparsemax(scores: Float[Tensor, "*rows S"]) -> Float[Tensor, "*rows S"]:
    """p = [z - tau]_+  (Martins and Astudillo 2016, eq. 4 and 5)."""
    weights: Tensor = _Entmax.apply(in_float32(scores), 2.0, _sparsemax_threshold)
    return weights


def entmax15(scores: Float[Tensor, "*rows S"]) -> Float[Tensor, "*rows S"]:
    """p = [z / 2 - tau]_+^2, alpha = 1.5  (Peters et al. 2019, algorithm 2)."""
    weights: Tensor = _Entmax.apply(in_float32(scores), 1.5, _entmax15_threshold)
    return weights


def entmax(scores: Float[Tensor, "*rows S"], alpha: Float[Tensor, "*#rows 1"]) -> Float[Tensor, "*rows S"]:
    """p = [(alpha - 1) z - tau]_+^(1 / (alpha - 1)), 1 < alpha <= 2, which it can learn  (Correia et al. 2019)."""
    scores = in_float32(scores)
    weights: Tensor = _Entmax.apply(scores, alpha.to(scores.dtype), _bisected_threshold)
    return weights


def _sparsemax_threshold(x: Tensor, alpha: float) -> Tensor:
    """tau = (sum_{i <= k} x_(i) - 1) / k, k = max {k: 1 + k x_(k) > sum_{i <= k} x_(i)}; x_(1) >= x_(2) >= ..."""
    ordered = x.sort(dim=-1, descending=True).values
    sums = ordered.cumsum(dim=-1)
    size = _size(1 + _ranks(x) * ordered > sums)
    return (sums.gather(-1, size - 1) - 1) / size


def _entmax15_threshold(x: Tensor, alpha: float) -> Tensor:
    """tau_k = M_k - sqrt((1 - V_k) / k) for the k with tau_k <= x_(k) that is the largest.

    M_k is the mean of the k largest x, V_k the sum of their squared distances to it.
    """
    ordered, k = x.sort(dim=-1, descending=True).values, _ranks(x)
    mean = ordered.cumsum(dim=-1) / k
    spread = ordered.square().cumsum(dim=-1) - k * mean.square()
    tau = mean - ((1 - spread) / k).clamp(min=0).sqrt()
    return tau.gather(-1, _size(tau <= ordered) - 1)


def _bisected_threshold(x: Tensor, alpha: Tensor) -> Tensor:
    """The weights sum to at least 1 with tau = -1, and to 0 with tau = 0, for the largest x is 0."""
    tau, width = x.new_full((*x.shape[:-1], 1), -1.0), 1.0
    while width > torch.finfo(x.dtype).eps / 2:
        width /= 2
        total = (x - (tau + width)).clamp(min=0).pow(1 / (alpha - 1)).sum(dim=-1, keepdim=True)
        tau = torch.where(total >= 1, tau + width, tau)
    return tau


def _ranks(x: Tensor) -> Tensor:
    """1 ... S."""
    return torch.arange(1, x.size(-1) + 1, dtype=x.dtype, device=x.device)


def _size(is_support: Tensor) -> Tensor:
    """How many have weight; 1 where all are NaN, so that these get out."""
    return is_support.sum(dim=-1, keepdim=True).clamp(min=1)


class _Entmax(torch.autograd.Function):
    """The weights, with tau from ``threshold(x, alpha)``, for x = (alpha - 1) (z - max z): then -1 <= tau < 0."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, alpha: Tensor | float, threshold: Callable[..., Tensor]) -> Tensor:
        """From scores to weights."""
        x = (alpha - 1) * (scores - scores.amax(dim=-1, keepdim=True))
        x = x.clamp(min=-2)  # far below tau; and no sum is infinite
        weights = (x - threshold(x, alpha)).clamp(min=0).pow(1 / (alpha - 1))
        weights = weights / weights.sum(dim=-1, keepdim=True)  # 1 but for rounding
        ctx.learned = isinstance(alpha, Tensor)
        ctx.alpha = None if ctx.learned else alpha
        ctx.save_for_backward(weights, *([alpha] if ctx.learned else []))
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_weights: Tensor) -> tuple[Tensor | None, ...]:
        """dL/dz = r (g - sum(r g) / sum(r)), r = p^(2 - alpha) where p > 0  (Peters et al. 2019, proposition 2).

        dp/dalpha = (p - q) / (alpha - 1)^2 - (p log p - q sum(p log p)) / (alpha - 1), q = r / sum(r)  (Correia et al.
        2019, proposition 1).
        """
        weights, *learned = ctx.saved_tensors
        alpha = learned[0] if ctx.learned else ctx.alpha
        slope = weights.pow(2 - alpha).masked_fill(weights == 0, 0)  # 0^0 is 1
        share = slope / slope.sum(dim=-1, keepdim=True)
        d_scores = slope * (d_weights - (share * d_weights).sum(dim=-1, keepdim=True))
        if not ctx.learned:
            return d_scores, None, None
        surprise = torch.special.entr(weights)  # -p log p
        by_alpha = (weights - share) / (alpha - 1) ** 2
        by_alpha = by_alpha + (surprise - share * surprise.sum(dim=-1, keepdim=True)) / (alpha - 1)
        return d_scores, (d_weights * by_alpha).sum_to_size(alpha.shape), None
