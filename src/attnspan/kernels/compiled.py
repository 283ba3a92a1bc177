"""What a fused decoder does at a step beside matrix products, by kernels that numba compiles for this CPU.

Nothing here is needed to understand the model: these are the functions of :mod:`attnspan.kernels.cells` and
:mod:`attnspan.kernels.additive`. There each operation of torch is a pass over all of its numbers, which no cache
holds; here an example is worked on from begin to end, by one thread, and its memory is read once in each direction.
tanh x is 2 sigmoid(2x) - 1, right to 1e-7 but not to as many digits of a small x. For one thread the kernels are
compiled otherwise than for several, and last digits may differ, as they do with torch's products.

Arrays are contiguous and all of one type, float32 or float64. Of ``asked`` [B, n], what was asked of the old state,
the gates are the first columns and the query the last.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import zlib
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attnspan.kernels.cells import State

# Numba reads how many threads to use when it is loaded. All of them wait for each other at every kernel, busy or not,
# and where both use OpenMP they are torch's own, whose number numba sets when it starts them. For one it starts none.
_THREADS = torch.get_num_threads()
if "numba" not in sys.modules:
    os.environ["NUMBA_NUM_THREADS"] = str(_THREADS)

import numba  # noqa: E402
from llvmlite import binding as llvm  # noqa: E402
from numba.extending import overload  # noqa: E402

if _THREADS > 1:
    numba.set_num_threads(min(_THREADS, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    torch.set_num_threads(_THREADS)

_FEATURES = llvm.get_host_cpu_features().flatten()
_CPU = f"{llvm.get_host_cpu_name()}-{zlib.crc32(_FEATURES.encode()):08x}"

Array = NDArray[Any]

# Sums in whatever order is quickest; but infinities are infinities, and what is not a number stays so.
_FLAGS = {"reassoc", "contract", "nsz"}


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile for each type of numbers when it is first called, with tensors, of which the last has that type."""
    kernels: dict[torch.dtype, Callable[..., None]] = {}

    def compile_it(dtype: torch.dtype, *, keep: bool) -> Callable[..., None]:
        # Numba has an index for each name, which processes change without a lock: so one name for each key in it.
        twin = FunctionType(function.__code__, function.__globals__, function.__name__)
        twin.__qualname__ = f"{function.__name__}-{dtype}-{_THREADS > 1}-{_CPU}"
        kernel = numba.njit(parallel=_THREADS > 1, nogil=True, error_model="numpy", fastmath=_FLAGS)(twin)
        if keep:
            kernel.enable_caching()
        return kernel

    def run(*tensors: Tensor) -> None:
        dtype, arrays = tensors[-1].dtype, [tensor.numpy() for tensor in tensors]
        try:
            if dtype not in kernels:
                kernels[dtype] = compile_it(dtype, keep=True)
            kernels[dtype](*arrays)
        except Exception:  # what was kept is damaged, the disk is full, there is nowhere to keep it: do without
            kernels[dtype] = compile_it(dtype, keep=False)
            kernels[dtype](*arrays)

    return run


def _exp(x: Any) -> Any:
    """e^x; in float32 from -87 to 88, and for what lies outside that of the end."""
    raise NotImplementedError  # for numba, which calls what stands below


@overload(_exp, jit_options={"fastmath": _FLAGS})
def _exp_of(x: Any) -> Callable[[Any], Any]:
    single = np.float32

    def exp_double(x: Any) -> Any:
        return math.exp(x)

    def exp_single(x: Any) -> Any:
        """2^n e^r, |r| <= log(2) / 2, with Cephes' polynomial: no call, so that it becomes vector instructions."""
        x = single(88) if x > single(88) else x  # so that not-a-number is none of the two
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


@_compiled
def _attend(
    key_factors: Array, states: Array, mask: Array, energy: Array, asked: Array, weights: Array, contexts: Array
) -> None:
    """Weights [B, S] and contexts [B, M]; key_factors [B, S, A] are exp(-2k).

    v^T tanh(q + k) is 2 v^T sigmoid(2q + 2k) and a constant, which the softmax does not see, and the sigmoid is
    1 / (1 + exp(-2q) exp(-2k)).
    """
    B, S, A = key_factors.shape
    query = asked.shape[1] - A
    zero, one, two = energy.dtype.type(0), energy.dtype.type(1), energy.dtype.type(2)
    for b in numba.prange(B):
        factors = np.empty(A, energy.dtype)
        for a in range(A):
            factors[a] = _exp(-two * asked[b, query + a])
        largest = energy.dtype.type(-np.inf)
        for s in range(S):
            if mask[b, s]:
                score = zero
                for a in range(A):
                    score += energy[a] / (one + factors[a] * key_factors[b, s, a])
                weights[b, s] = two * score
                largest = max(largest, two * score)
        total = zero
        for s in range(S):
            weights[b, s] = _exp(weights[b, s] - largest) if mask[b, s] else zero
            total += weights[b, s]
        contexts[b] = zero
        for s in range(S):
            weights[b, s] /= total
            if mask[b, s]:
                for m in range(states.shape[2]):
                    contexts[b, m] += weights[b, s] * states[b, s, m]


@_compiled
def _attend_back(
    key_factors: Array,
    states: Array,
    mask: Array,
    energy: Array,
    asked: Array,
    weights: Array,
    d_contexts: Array,
    d_weights: Array,
    d_asked: Array,
    d_keys: Array,
    d_energy: Array,
) -> None:
    """The query's part of d_asked; added to d_keys [B, S, A], which lack 4v, and to d_energy [B, A], which lacks 2."""
    B, S, A = key_factors.shape
    query = asked.shape[1] - A
    zero, one, two = energy.dtype.type(0), energy.dtype.type(1), energy.dtype.type(2)
    for b in numba.prange(B):
        factors, d_query, d_weight = np.empty(A, energy.dtype), np.zeros(A, energy.dtype), np.empty(S, energy.dtype)
        for a in range(A):
            factors[a] = _exp(-two * asked[b, query + a])
        mean = zero
        for s in range(S):
            if mask[b, s]:
                total = d_weights[b, s]
                for m in range(states.shape[2]):
                    total += d_contexts[b, m] * states[b, s, m]
                d_weight[s] = total
                mean += weights[b, s] * total
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
            d_asked[b, query + a] = two * two * energy[a] * d_query[a]


@_compiled
def _gru(given: Array, asked: Array, hidden: Array, next_hidden: Array, new: Array) -> None:
    B, H = hidden.shape
    one, two = hidden.dtype.type(1), hidden.dtype.type(2)
    for b in numba.prange(B):
        for i in range(2 * H):  # one loop an array that is written, or they do not become vector instructions
            asked[b, i] = one / (one + _exp(-(given[b, i] + asked[b, i])))
        for i in range(H):
            new[b, i] = two / (one + _exp(-two * (given[b, 2 * H + i] + asked[b, i] * asked[b, 2 * H + i]))) - one
        for i in range(H):
            next_hidden[b, i] = new[b, i] + asked[b, H + i] * (hidden[b, i] - new[b, i])


@_compiled
def _gru_back(
    d_next: Array, asked: Array, hidden: Array, new: Array, d_given: Array, d_asked: Array, d_hidden: Array
) -> None:
    B, H = hidden.shape
    one = hidden.dtype.type(1)
    for b in numba.prange(B):
        for i in range(H):
            reset, update = asked[b, i], asked[b, H + i]
            d_new = d_next[b, i] * (one - update) * (one - new[b, i] * new[b, i])
            d_reset = d_new * asked[b, 2 * H + i] * reset * (one - reset)
            d_update = d_next[b, i] * (hidden[b, i] - new[b, i]) * update * (one - update)
            d_given[b, i], d_given[b, H + i], d_given[b, 2 * H + i] = d_reset, d_update, d_new
            d_asked[b, i], d_asked[b, H + i], d_asked[b, 2 * H + i] = d_reset, d_update, d_new * reset
            d_hidden[b, i] = d_next[b, i] * update


@_compiled
def _lstm(given: Array, asked: Array, cell: Array, next_hidden: Array, next_cell: Array, tanh_cell: Array) -> None:
    B, H = cell.shape
    one, two = cell.dtype.type(1), cell.dtype.type(2)
    for b in numba.prange(B):
        for i in range(2 * H):
            asked[b, i] = one / (one + _exp(-(given[b, i] + asked[b, i])))
        for i in range(2 * H, 3 * H):
            asked[b, i] = two / (one + _exp(-two * (given[b, i] + asked[b, i]))) - one
        for i in range(3 * H, 4 * H):
            asked[b, i] = one / (one + _exp(-(given[b, i] + asked[b, i])))
        for i in range(H):
            next_cell[b, i] = asked[b, H + i] * cell[b, i] + asked[b, i] * asked[b, 2 * H + i]
        for i in range(H):
            tanh_cell[b, i] = two / (one + _exp(-two * next_cell[b, i])) - one
        for i in range(H):
            next_hidden[b, i] = asked[b, 3 * H + i] * tanh_cell[b, i]


@_compiled
def _lstm_back(
    d_hidden: Array,
    d_next: Array,
    asked: Array,
    cell: Array,
    tanh_cell: Array,
    d_given: Array,
    d_asked: Array,
    d_cell: Array,
) -> None:
    B, H = cell.shape
    one = cell.dtype.type(1)
    for b in numba.prange(B):
        for i in range(H):
            enter, forget = asked[b, i], asked[b, H + i]
            new, leave = asked[b, 2 * H + i], asked[b, 3 * H + i]
            d_sum = d_next[b, i] + d_hidden[b, i] * leave * (one - tanh_cell[b, i] * tanh_cell[b, i])
            d_given[b, i] = d_sum * new * enter * (one - enter)
            d_given[b, H + i] = d_sum * cell[b, i] * forget * (one - forget)
            d_given[b, 2 * H + i] = d_sum * enter * (one - new * new)
            d_given[b, 3 * H + i] = d_hidden[b, i] * tanh_cell[b, i] * leave * (one - leave)
            d_cell[b, i] = d_sum * forget
        for i in range(4 * H):
            d_asked[b, i] = d_given[b, i]


class RowAttention:
    """See :class:`~attnspan.kernels.additive.AdditiveAttention`."""

    def __init__(self, keys: Tensor, states: Tensor, mask: Tensor, energy: Tensor) -> None:
        self._energy = energy
        factors = torch.exp(-2 * keys)
        self._given = [part.detach().contiguous() for part in (factors, states, mask, energy)]

    @functools.cached_property
    def _sums(self) -> tuple[Tensor, Tensor]:
        """Of keys [B, S, A] and v [B, A]; the way there needs none."""
        factors = self._given[0]
        return torch.zeros_like(factors), factors.new_zeros(factors.size(0), factors.size(2))

    def attend(self, asked: Tensor, weights: Tensor, context: Tensor) -> None:
        """See :class:`~attnspan.kernels.additive.AdditiveAttention`."""
        _attend(*self._given, asked, weights, context)

    def back(self, asked: Tensor, weights: Tensor, d_context: Tensor, d_weights: Tensor, d_asked: Tensor) -> None:
        """See :class:`~attnspan.kernels.additive.AdditiveAttention`."""
        given = (asked, weights, d_context, d_weights, d_asked)
        _attend_back(*self._given, *given, *self._sums)

    def sums(self) -> tuple[Tensor, Tensor]:
        """See :class:`~attnspan.kernels.additive.AdditiveAttention`."""
        d_keys, d_energy = self._sums
        return d_keys * (4 * self._energy), 2 * d_energy.sum(dim=0)


class RowGRU:
    """See :class:`~attnspan.kernels.cells.GRUCell`."""

    parts = 1

    @staticmethod
    def step(given: Tensor, asked: Tensor, state: State, into: State, extra: Tensor) -> None:
        """See :class:`~attnspan.kernels.cells.Cell`: r, z, g_n stay in ``asked``, and n in ``extra``."""
        _gru(given, asked, state[0], into[0], extra)

    @staticmethod
    def needed(asked: Tensor, states: State, extra: Tensor) -> State:
        """See :class:`~attnspan.kernels.cells.Cell`."""
        return states[0], extra

    @staticmethod
    def back(d_state: State, asked: Tensor, needed: State, d_given: Tensor, d_asked: Tensor) -> State:
        """See :class:`~attnspan.kernels.cells.Cell`."""
        d_hidden = torch.empty_like(d_state[0])
        _gru_back(d_state[0], asked, *needed, d_given, d_asked, d_hidden)
        return (d_hidden,)


class RowLSTM:
    """See :class:`~attnspan.kernels.cells.LSTMCell`."""

    parts = 2

    @staticmethod
    def step(given: Tensor, asked: Tensor, state: State, into: State, extra: Tensor) -> None:
        """See :class:`~attnspan.kernels.cells.Cell`: i, f, g, o stay in ``asked``, and tanh(c') in ``extra``."""
        _lstm(given, asked, state[1], *into, extra)

    @staticmethod
    def needed(asked: Tensor, states: State, extra: Tensor) -> State:
        """See :class:`~attnspan.kernels.cells.Cell`."""
        return states[1], extra

    @staticmethod
    def back(d_state: State, asked: Tensor, needed: State, d_given: Tensor, d_asked: Tensor) -> State:
        """See :class:`~attnspan.kernels.cells.Cell`."""
        d_cell = torch.empty_like(d_state[1])
        _lstm_back(*d_state, asked, *needed, d_given, d_asked, d_cell)
        return torch.zeros_like(d_state[0]), d_cell
