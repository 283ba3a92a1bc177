"""One step of cells and of additive attention, by kernels that numba compiles for this CPU.

These are the functions of :mod:`attnspan.kernels.cells` and :mod:`attnspan.kernels.additive`. There each operation of
torch is a pass over all numbers of a batch, which no cache holds. Here one thread works on an example from begin to
end, and its memory is read once in each direction. tanh x is 2 sigmoid(2x) - 1, exact to 1e-7 but not to as many
digits of a small x. The number of threads changes nothing here; in torch's products it may change last digits.

Arrays are contiguous and all of one type, float32 or float64. ``projected`` [B, n] has the gates in its first columns
and the query in its last.
"""

from __future__ import annotations

import math
import os
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attnspan.kernels.cells import State

# Numba reads the number of threads when it is loaded. All of them wait for each other at every kernel, busy or not, and
# where both use OpenMP they are torch's own, whose number numba sets when it starts them. For one it starts none.
_THREADS = torch.get_num_threads()
if "numba" not in sys.modules:
    os.environ["NUMBA_NUM_THREADS"] = str(_THREADS)

import numba  # noqa: E402
from llvmlite import binding as llvm  # noqa: E402
from numba.extending import overload  # noqa: E402

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError("NUMBA_DISABLE_JIT is set")
if _THREADS > 1:
    numba.set_num_threads(min(_THREADS, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    torch.set_num_threads(_THREADS)

_FEATURES = llvm.get_host_cpu_features().flatten()
_CPU = f"{llvm.get_host_cpu_name()}-{zlib.crc32(_FEATURES.encode()):08x}"

Array = NDArray[Any]

# Infinities and NaN keep their meaning, and sums their order: with "reassoc", kernels for several threads sum in one
# order in the process that compiles them, and in another where they are loaded from numba's cache. LLVM does not
# vectorise a sum that keeps its order, which is then three times slower, so no long sum stands in an inner loop here.
OPTIONS: Any = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile at the first call for each type of numbers, that of the last tensor."""
    kernels: dict[torch.dtype, Callable[..., None]] = {}

    def compile_it(dtype: torch.dtype, *, keep: bool) -> Callable[..., None]:
        # Numba's cache has one index file a name, which processes change without a lock: so each key has its own name.
        twin = FunctionType(function.__code__, function.__globals__, function.__name__)
        twin.__qualname__ = f"{function.__name__}-{dtype}-{_THREADS > 1}-{_CPU}"
        kernel = numba.njit(parallel=_THREADS > 1, nogil=True, **OPTIONS)(twin)
        if keep:
            kernel.enable_caching()
        return kernel

    def run(*tensors: Tensor) -> None:
        dtype, arrays = tensors[-1].dtype, [tensor.numpy() for tensor in tensors]
        try:
            if dtype not in kernels:
                kernels[dtype] = compile_it(dtype, keep=True)
            kernels[dtype](*arrays)
        except Exception:  # the cache is damaged, the disk is full, there is no place for it: do without
            kernels[dtype] = compile_it(dtype, keep=False)
            kernels[dtype](*arrays)

    return run


def _exp(x: Any) -> Any:
    """e^x; in float32 x is clamped to -87 ... 88."""
    raise NotImplementedError  # numba calls the overload below


@overload(_exp, jit_options=OPTIONS)
def _exp_of(x: Any) -> Callable[[Any], Any]:
    single = np.float32

    def exp_double(x: Any) -> Any:
        return math.exp(x)

    def exp_single(x: Any) -> Any:
        """2^n e^r, |r| <= log(2) / 2, with Cephes' polynomial: without a call, so that it is vectorised."""
        x = single(88) if x > single(88) else x  # written so that NaN stays NaN
        x = single(-87) if x < single(-87) else x
        n = np.floor(x * single(1.44269504) + single(0.5))
        r = x - n * single(0.693147181)
        p = single(1.9875691500e-4)
        p = p * r + single(1.3981999507e-3)
        p = p * r + single(8.3334519073e-3)
        p = p * r + single(4.1665795894e-2)
        p = p * r + single(1.6666665459e-1)
        p = p * r + single(5.0000001201e-1)
        p = p * r * r + r + single(1)
        return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)

    return exp_single if x == numba.types.float32 else exp_double


def _inner(x: Any, y: Any, b: Any, s: Any, terms: Any) -> Any:
    """sum_m x_bm y_bsm for x [B, M] and y [B, S, M], by halves; ``terms`` has room for M numbers."""
    raise NotImplementedError


@overload(_inner, jit_options=OPTIONS)
def _inner_of(x: Any, y: Any, b: Any, s: Any, terms: Any) -> Callable[..., Any]:
    def inner(x: Any, y: Any, b: Any, s: Any, terms: Any) -> Any:
        n = x.shape[1]
        total = x[b, n - 1] * y[b, s, n - 1] if n % 2 else x.dtype.type(0)
        n //= 2
        for m in range(n):
            terms[m] = x[b, m] * y[b, s, m] + x[b, n + m] * y[b, s, n + m]
        while n > 8:
            total += terms[n - 1] if n % 2 else x.dtype.type(0)
            n //= 2
            for m in range(n):
                terms[m] += terms[n + m]
        for m in range(n):
            total += terms[m]
        return total

    return inner


def softmax_row(scores: Any, mask: Any, b: Any, weights: Any, k: Any) -> None:
    """Write weights_bk from scores, those of padding excepted."""
    raise NotImplementedError


@overload(softmax_row, jit_options=OPTIONS)
def _softmax_of(scores: Any, mask: Any, b: Any, weights: Any, k: Any) -> Callable[..., None]:
    def softmax(scores: Any, mask: Any, b: Any, weights: Any, k: Any) -> None:
        S = mask.shape[1]
        zero, largest = scores.dtype.type(0), scores.dtype.type(-np.inf)
        for s in range(S):
            largest = max(largest, scores[s]) if mask[b, s] else largest
        for s in range(S):  # apart from the sum, or it is not vectorised
            weights[b, k, s] = _exp(scores[s] - largest) if mask[b, s] else zero
        total = zero
        for s in range(S):
            total += weights[b, k, s]
        for s in range(S):
            weights[b, k, s] /= total

    return softmax


@compiled
def attend(
    key_factors: Array, states: Array, mask: Array, energy: Array, projected: Array, weights: Array, contexts: Array
) -> None:
    """Weights [B, K, S] and contexts [B, K, M] of K queries to each source, the last columns of projected [B, K, n].

    key_factors are exp(-2k), [B, A, P]: one row a feature, with zeros behind its S numbers.

    v^T tanh(q + k) is 2 v^T sigmoid(2q + 2k) and a constant, on which the softmax does not depend, and the sigmoid is
    1 / (1 + exp(-2q) exp(-2k)).
    """
    B, A, P = key_factors.shape
    S, K, query = mask.shape[1], projected.shape[1], projected.shape[2] - A
    zero, one, two = energy.dtype.type(0), energy.dtype.type(1), energy.dtype.type(2)
    for b in numba.prange(B):
        scores = np.empty(P, energy.dtype)
        for k in range(K):
            scores[:] = zero
            for a in range(A):
                factor, share = _exp(-two * projected[b, k, query + a]), two * energy[a]
                for s in range(P):
                    scores[s] += share / (one + factor * key_factors[b, a, s])
            softmax_row(scores, mask, b, weights, k)
            contexts[b, k] = zero
        for s in range(S):
            if mask[b, s]:
                for k in range(K):
                    weight = weights[b, k, s]
                    for m in range(states.shape[2]):
                        contexts[b, k, m] += weight * states[b, s, m]


@compiled
def attend_backward(
    key_factors: Array,
    states: Array,
    mask: Array,
    energy: Array,
    projected: Array,
    weights: Array,
    d_contexts: Array,
    d_weights: Array,
    d_projected: Array,
    d_keys: Array,
    d_energy: Array,
) -> None:
    """Write the query's part of d_projected; add to d_keys [B, S, A] without 4v and d_energy [B, A] without 2.

    key_factors are exp(-2k), [B, S, A].
    """
    B, S, A = key_factors.shape
    query = projected.shape[1] - A
    zero, one, two = energy.dtype.type(0), energy.dtype.type(1), energy.dtype.type(2)
    for b in numba.prange(B):
        factors, d_query, d_weight = np.empty(A, energy.dtype), np.zeros(A, energy.dtype), np.empty(S, energy.dtype)
        terms = np.empty(states.shape[2], energy.dtype)
        for a in range(A):
            factors[a] = _exp(-two * projected[b, query + a])
        mean = zero
        for s in range(S):
            if mask[b, s]:
                d_weight[s] = d_weights[b, s] + _inner(d_contexts, states, b, s, terms)
                mean += weights[b, s] * d_weight[s]
        for s in range(S):
            if mask[b, s]:
                d_score = weights[b, s] * (d_weight[s] - mean)
                for a in range(A):
                    active = one / (one + factors[a] * key_factors[b, s, a])
                    share = d_score * active
                    slope = share - share * active  # tanh'(x) = 4 sigmoid(2x) (1 - sigmoid(2x))
                    d_energy[b, a] += share
                    d_query[a] += slope
                    d_keys[b, s, a] += slope
        for a in range(A):
            d_projected[b, query + a] = two * two * energy[a] * d_query[a]


@compiled
def _gru(input_gates: Array, hidden_gates: Array, hidden: Array, next_hidden: Array, new: Array) -> None:
    B, H = hidden.shape
    one, two = hidden.dtype.type(1), hidden.dtype.type(2)
    for b in numba.prange(B):
        for i in range(2 * H):  # one loop for each array written, or it is not vectorised
            hidden_gates[b, i] = one / (one + _exp(-(input_gates[b, i] + hidden_gates[b, i])))
        for i in range(H):
            new[b, i] = (
                two / (one + _exp(-two * (input_gates[b, 2 * H + i] + hidden_gates[b, i] * hidden_gates[b, 2 * H + i])))
                - one
            )
        for i in range(H):
            next_hidden[b, i] = new[b, i] + hidden_gates[b, H + i] * (hidden[b, i] - new[b, i])


@compiled
def _gru_backward(
    d_next: Array,
    hidden_gates: Array,
    hidden: Array,
    new: Array,
    d_input_gates: Array,
    d_hidden_gates: Array,
    d_hidden: Array,
) -> None:
    B, H = hidden.shape
    one = hidden.dtype.type(1)
    for b in numba.prange(B):
        for i in range(H):
            reset, update = hidden_gates[b, i], hidden_gates[b, H + i]
            d_new = d_next[b, i] * (one - update) * (one - new[b, i] * new[b, i])
            d_reset = d_new * hidden_gates[b, 2 * H + i] * reset * (one - reset)
            d_update = d_next[b, i] * (hidden[b, i] - new[b, i]) * update * (one - update)
            d_input_gates[b, i], d_input_gates[b, H + i], d_input_gates[b, 2 * H + i] = d_reset, d_update, d_new
            d_hidden_gates[b, i], d_hidden_gates[b, H + i] = d_reset, d_update
            d_hidden_gates[b, 2 * H + i] = d_new * reset
            d_hidden[b, i] = d_next[b, i] * update


@compiled
def _lstm(
    input_gates: Array, hidden_gates: Array, cell: Array, next_hidden: Array, next_cell: Array, tanh_cell: Array
) -> None:
    B, H = cell.shape
    one, two = cell.dtype.type(1), cell.dtype.type(2)
    for b in numba.prange(B):
        for i in range(2 * H):
            hidden_gates[b, i] = one / (one + _exp(-(input_gates[b, i] + hidden_gates[b, i])))
        for i in range(2 * H, 3 * H):
            hidden_gates[b, i] = two / (one + _exp(-two * (input_gates[b, i] + hidden_gates[b, i]))) - one
        for i in range(3 * H, 4 * H):
            hidden_gates[b, i] = one / (one + _exp(-(input_gates[b, i] + hidden_gates[b, i])))
        for i in range(H):
            next_cell[b, i] = hidden_gates[b, H + i] * cell[b, i] + hidden_gates[b, i] * hidden_gates[b, 2 * H + i]
        for i in range(H):
            tanh_cell[b, i] = two / (one + _exp(-two * next_cell[b, i])) - one
        for i in range(H):
            next_hidden[b, i] = hidden_gates[b, 3 * H + i] * tanh_cell[b, i]


@compiled
def _lstm_backward(
    d_hidden: Array,
    d_next: Array,
    hidden_gates: Array,
    cell: Array,
    tanh_cell: Array,
    d_input_gates: Array,
    d_hidden_gates: Array,
    d_cell: Array,
) -> None:
    B, H = cell.shape
    one = cell.dtype.type(1)
    for b in numba.prange(B):
        for i in range(H):
            enter, forget = hidden_gates[b, i], hidden_gates[b, H + i]
            new, leave = hidden_gates[b, 2 * H + i], hidden_gates[b, 3 * H + i]
            d_sum = d_next[b, i] + d_hidden[b, i] * leave * (one - tanh_cell[b, i] * tanh_cell[b, i])
            d_input_gates[b, i] = d_sum * new * enter * (one - enter)
            d_input_gates[b, H + i] = d_sum * cell[b, i] * forget * (one - forget)
            d_input_gates[b, 2 * H + i] = d_sum * enter * (one - new * new)
            d_input_gates[b, 3 * H + i] = d_hidden[b, i] * tanh_cell[b, i] * leave * (one - leave)
            d_cell[b, i] = d_sum * forget
        for i in range(4 * H):
            d_hidden_gates[b, i] = d_input_gates[b, i]


@dataclass(frozen=True)
class NumbaCell:
    """A :class:`~attnspan.kernels.cells.Cell` whose activated gates stay in ``hidden_gates``; of a GRU also g_n.

    Of the state before a step, both cells need only the last part: h of a GRU, c of an LSTM.
    """

    parts: int
    kernel: Callable[..., None]
    backward_kernel: Callable[..., None]

    def step(
        self, input_gates: Tensor, hidden_gates: Tensor, state: State, next_state: State, activation: Tensor
    ) -> None:
        """See :class:`~attnspan.kernels.cells.Cell`."""
        self.kernel(input_gates, hidden_gates, state[-1], *next_state, activation)

    def prepare_backward(self, hidden_gates: Tensor, states: State, activation: Tensor) -> State:
        """See :class:`~attnspan.kernels.cells.Cell`."""
        return states[-1], activation

    def backward(
        self, d_state: State, hidden_gates: Tensor, saved: State, d_input_gates: Tensor, d_hidden_gates: Tensor
    ) -> State:
        """See :class:`~attnspan.kernels.cells.Cell`."""
        d_last = torch.empty_like(d_state[-1])
        self.backward_kernel(*d_state, hidden_gates, *saved, d_input_gates, d_hidden_gates, d_last)
        return *(torch.zeros_like(part) for part in d_state[:-1]), d_last


NUMBA_GRU = NumbaCell(1, _gru, _gru_backward)
NUMBA_LSTM = NumbaCell(2, _lstm, _lstm_backward)
