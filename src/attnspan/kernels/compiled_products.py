"""Attention by inner products with the states, compiled by numba: for decoding, which needs no gradients.

The states of a source are read from memory once: both passes over them follow each other, while a cache holds them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.extending import overload

from attnspan.kernels.compiled import OPTIONS, Array, compiled, softmax_row


def _product(x: Any, y: Any, b: Any, s: Any, terms: Any) -> Any:
    """sum_m x_bm y_bsm for x [B, M] and y [B, S, M], by quarters, then halves; ``terms`` has room for M numbers."""
    raise NotImplementedError  # numba calls the overload below


@overload(_product, jit_options=OPTIONS)
def _product_of(x: Any, y: Any, b: Any, s: Any, terms: Any) -> Callable[..., Any]:
    def product(x: Any, y: Any, b: Any, s: Any, terms: Any) -> Any:
        n = x.shape[1] // 4
        total = x.dtype.type(0)
        for m in range(4 * n, x.shape[1]):
            total += x[b, m] * y[b, s, m]
        for m in range(n):
            one = x[b, m] * y[b, s, m] + x[b, n + m] * y[b, s, n + m]
            other = x[b, 2 * n + m] * y[b, s, 2 * n + m] + x[b, 3 * n + m] * y[b, s, 3 * n + m]
            terms[m] = one + other
        while n > 8:
            total += terms[n - 1] if n % 2 else x.dtype.type(0)
            n //= 2
            for m in range(n):
                terms[m] += terms[n + m]
        for m in range(n):
            total += terms[m]
        return total

    return product


def _average(states: Any, end: Any, b: Any, weights: Any, contexts: Any) -> None:
    """Write contexts_b, the sum of w_bs h_bs over the first ``end`` positions, four of them at a time."""
    raise NotImplementedError


@overload(_average, jit_options=OPTIONS)
def _average_of(states: Any, end: Any, b: Any, weights: Any, contexts: Any) -> Callable[..., None]:
    def average(states: Any, end: Any, b: Any, weights: Any, contexts: Any) -> None:
        contexts[b] = states.dtype.type(0)
        for s in range(0, end - 3, 4):
            w, x, y, z = weights[b, 0, s], weights[b, 0, s + 1], weights[b, 0, s + 2], weights[b, 0, s + 3]
            for m in range(states.shape[2]):
                one = w * states[b, s, m] + x * states[b, s + 1, m]
                contexts[b, m] += one + (y * states[b, s + 2, m] + z * states[b, s + 3, m])
        for s in range(end - end % 4, end):
            for m in range(states.shape[2]):
                contexts[b, m] += weights[b, 0, s] * states[b, s, m]

    return average


@compiled
def attend_by_product(states: Array, mask: Array, queries: Array, weights: Array, contexts: Array) -> None:
    """Weights [B, 1, S] and contexts [B, M] for the scores q^T h_s of queries [B, M], one to each source.

    Padding behind the last real position is not read, so that a source has the same numbers in every batch.
    """
    B, S, M = states.shape
    for b in numba.prange(B):
        scores, terms = np.empty(S, states.dtype), np.empty(M, states.dtype)
        end = S
        while not mask[b, end - 1]:
            end -= 1
        for s in range(end):
            scores[s] = _product(queries, states, b, s, terms)
        softmax_row(scores, mask, b, weights, 0)
        _average(states, end, b, weights, contexts)
