"""One step of a GRU or LSTM, and the same step backwards, on buffers: what the fused decoders share.

Nothing here is needed to understand the model. The equations are those of ``torch.nn.GRU`` and ``torch.nn.LSTM``, with
i_x what the input gives to gate x and g_x what the old state gives, biases included. ``d_x`` is the gradient of the
loss in x. A state is (h,) or (h, c), each [B, H].
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

State = tuple[Tensor, ...]
"""(h,) of a GRU, (h, c) of an LSTM."""


class Cell(Protocol):
    """A cell of G gates without weights.

    Attributes:
        parts: tensors of a state.
    """

    parts: int

    @staticmethod
    def step(given: Tensor, asked: Tensor, state: State, into: State, extra: Tensor) -> None:
        """Write the next state ``into`` buffers.

        Args:
            given: [B, GH] i.
            asked: [B, GH or more] g; what the way back needs takes its place, and in ``extra`` [B, H].
            state: before the step.
            into: the state behind it.
            extra: see above.
        """

    @staticmethod
    def needed(asked: Tensor, states: State, extra: Tensor) -> State:
        """What the way back needs beside ``asked``, computed for all steps at once.

        Args:
            asked: [T, B, GH or more] as the steps have left it.
            states: parts [T, B, H], before each step.
            extra: [T, B, H] likewise.

        Returns:
            tensors [T, B, n].
        """

    @staticmethod
    def back(d_state: State, asked: Tensor, needed: State, d_given: Tensor, d_asked: Tensor) -> State:
        """Write d_i [B, GH], and d_g into the first columns of ``d_asked``, from the gradients of the next state.

        Returns:
            the gradients of the state before the step, without what comes through g.
        """


class GRUCell:
    """r = sigmoid(i_r + g_r);  z = sigmoid(i_z + g_z);  n = tanh(i_n + r g_n);  h' = (1 - z) n + z h."""

    parts = 1

    @staticmethod
    def step(given: Tensor, asked: Tensor, state: State, into: State, extra: Tensor) -> None:
        """See :class:`Cell`: r, z, g_n stay in ``asked``, and n in ``extra``."""
        H = extra.size(1)
        gates = asked[:, : 3 * H]
        gates[:, : 2 * H].add_(given[:, : 2 * H]).sigmoid_()
        reset, update, recurrent = gates.chunk(3, dim=1)
        torch.addcmul(given[:, 2 * H :], reset, recurrent, out=extra).tanh_()
        torch.lerp(extra, state[0], update, out=into[0])

    @staticmethod
    def needed(asked: Tensor, states: State, extra: Tensor) -> State:
        """See :class:`Cell`: dh'/dz, dh'/dn behind their functions, and d(r g_n)/dr."""
        reset, update, recurrent = asked[..., : 3 * extra.size(2)].chunk(3, dim=2)
        of_update = (states[0] - extra) * update * (1 - update)
        of_new = (1 - update) * (1 - extra * extra)
        return (torch.cat([of_update, of_new, recurrent * reset * (1 - reset)], dim=2),)

    @staticmethod
    def back(d_state: State, asked: Tensor, needed: State, d_given: Tensor, d_asked: Tensor) -> State:
        """See :class:`Cell`."""
        (slopes,) = needed
        H = d_state[0].size(1)
        reset, update, _ = asked[:, : 3 * H].chunk(3, dim=1)
        of_state = slopes[:, : 2 * H].unflatten(1, (2, H))
        torch.mul(d_state[0].unsqueeze(1), of_state, out=d_given[:, H:].unflatten(1, (2, H)))  # d_z, d_n
        d_new = d_given[:, 2 * H :]
        torch.mul(d_new, slopes[:, 2 * H :], out=d_given[:, :H])  # d_r
        d_asked[:, : 2 * H] = d_given[:, : 2 * H]
        torch.mul(d_new, reset, out=d_asked[:, 2 * H : 3 * H])
        return (d_state[0] * update,)


class LSTMCell:
    """i, f, o = sigmoid(i_x + g_x);  g = tanh(i_g + g_g);  c' = f c + i g;  h' = o tanh(c')."""

    parts = 2

    @staticmethod
    def step(given: Tensor, asked: Tensor, state: State, into: State, extra: Tensor) -> None:
        """See :class:`Cell`: i, f, g, o stay in ``asked``, and tanh(c') in ``extra``."""
        H = extra.size(1)
        gates = asked[:, : 4 * H]
        gates += given
        gates[:, : 2 * H].sigmoid_()
        enter, forget, new, leave = gates.chunk(4, dim=1)
        new.tanh_()
        leave.sigmoid_()
        torch.addcmul(forget * state[1], enter, new, out=into[1])
        torch.tanh(into[1], out=extra)
        torch.mul(leave, extra, out=into[0])

    @staticmethod
    def needed(asked: Tensor, states: State, extra: Tensor) -> State:
        """See :class:`Cell`: dc'/di, dc'/df, dc'/dg and dh'/do behind their functions, and dh'/dc'."""
        enter, forget, new, leave = asked[..., : 4 * extra.size(2)].chunk(4, dim=2)
        of_enter = new * enter * (1 - enter)
        of_forget = states[1] * forget * (1 - forget)
        of_new = enter * (1 - new * new)
        of_leave = extra * leave * (1 - leave)
        return (torch.cat([of_enter, of_forget, of_new, of_leave, leave * (1 - extra * extra)], dim=2),)

    @staticmethod
    def back(d_state: State, asked: Tensor, needed: State, d_given: Tensor, d_asked: Tensor) -> State:
        """See :class:`Cell`."""
        (slopes,) = needed
        d_hidden, d_cell = d_state
        H = d_cell.size(1)
        d_cell = torch.addcmul(d_cell, d_hidden, slopes[:, 4 * H :])
        torch.mul(torch.cat([d_cell, d_cell, d_cell, d_hidden], dim=1), slopes[:, : 4 * H], out=d_given)
        d_asked[:, : 4 * H] = d_given
        return torch.zeros_like(d_hidden), d_cell * asked[:, H : 2 * H]


def are_covered(cells: nn.Module) -> bool:
    """Whether the equations above are those of cells: torch's GRU or LSTM itself, with biases, without projection."""
    # Exactly these classes, for one derived from them may compute something else.
    return type(cells) in (nn.GRU, nn.LSTM) and bool(cells.bias) and not cells.proj_size


def cell_of(cells: nn.GRU | nn.LSTM) -> type[Cell]:
    """The quickest step of torch's cells, of those that :func:`are_covered`, that there is for their weights."""
    is_lstm = isinstance(cells, nn.LSTM)
    if is_for_rows(cells.all_weights[0][0]):
        from attnspan.kernels.compiled import RowGRU, RowLSTM  # to load numba takes a quarter of a second

        return RowLSTM if is_lstm else RowGRU
    return LSTMCell if is_lstm else GRUCell


def is_for_rows(tensor: Tensor) -> bool:
    """Whether :mod:`attnspan.kernels.compiled` works on its device and in its precision."""
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)


def states_from(start: State, steps: int) -> State:
    """Buffers [T+1, B, H] for each part of a state, which begin with ``start``."""
    buffers = tuple(part.new_empty(steps + 1, *part.shape) for part in start)
    for buffer, part in zip(buffers, start, strict=True):
        buffer[0] = part
    return buffers


def at(states: Sequence[Tensor], t: int) -> State:
    """The state [B, H] at time t of states [T, B, H]."""
    return tuple(part[t] for part in states)


def way_back(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., tuple[Tensor | None, ...]]:
    """For an autograd function's ``backward``: it has no gradient of its own, and autocast leaves it alone."""

    @functools.wraps(backward)
    def in_weights_precision(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.autocast(ctx.saved_tensors[0].device.type, enabled=False):
            return backward(ctx, *gradients)

    return once_differentiable(in_weights_precision)


def softmax_back(weights: Tensor, d_weights: Tensor) -> Tensor:
    """d_scores of weights = softmax(scores) [B, S]; 0 in padding, as the weights are."""
    weighted = weights * d_weights
    return weighted - weights * weighted.sum(dim=1, keepdim=True)
