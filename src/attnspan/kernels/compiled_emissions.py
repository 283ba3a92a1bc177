"""The elementwise parts of :mod:`attnspan.kernels.emissions`, by kernels that numba compiles for this CPU.

Arrays are as :mod:`attnspan.kernels.compiled` says. The positions of neighbouring examples are neighbours too, so that
loops with an exponential are long: what is left of a loop behind the last full register is slow.
"""

from __future__ import annotations

import numba

from attnspan.kernels.compiled import Array, _exp, compiled

_COLUMNS = 256
"""Positions that a thread works on at a time, at least."""


@compiled
def activate(value_factors: Array, share_factors: Array, features: Array) -> None:
    """tanh(v + u) [B, S, H] from exp(-2v) [B, S, H] and exp(-2u) [B, H]."""
    B, S, H = features.shape
    one, two = features.dtype.type(1), features.dtype.type(2)
    for b in numba.prange(B):
        for s in range(S):
            for h in range(H):
                features[b, s, h] = two / (one + value_factors[b, s, h] * share_factors[b, h]) - one


@compiled
def activate_backward(features: Array, d_features: Array, d_values: Array, d_share: Array) -> None:
    """Multiply d_features by tanh'; write its sum over positions to d_share, and add it to d_values."""
    B, S, H = features.shape
    one = features.dtype.type(1)
    for b in numba.prange(B):
        d_share[b] = features.dtype.type(0)
        for s in range(S):
            for h in range(H):  # one loop for each array written, or it is not vectorised
                d_features[b, s, h] *= one - features[b, s, h] * features[b, s, h]
            for h in range(H):
                d_values[b, s, h] += d_features[b, s, h]
            for h in range(H):
                d_share[b, h] += d_features[b, s, h]


@compiled
def exponentials(logits: Array, shift: Array, found: Array) -> None:
    """Write exp(logits [V, n] - shift [n])."""
    V, n = logits.shape
    for v in numba.prange(V):
        for i in range(n):
            found[v, i] = _exp(logits[v, i] - shift[i])
