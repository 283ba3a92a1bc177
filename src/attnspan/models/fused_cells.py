"""One step of a GRU or LSTM, and the same step backwards, on buffers: what the fused decoders share.

Nothing here is needed to understand the model. The equations are those of ``torch.nn.GRU`` and ``torch.nn.LSTM``, with
i_x what the input gives to gate x and g_x what the old state gives, biases included. ``d_x`` is the gradient of the
loss in x. A state is (h,) or (h, c), each [B, H].
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from attnspan.models.recurrence import State


class Cell(Protocol):
    """A cell without weights.

    Attributes:
        kept: numbers that a step keeps for the way back, in multiples of H.
        parts: tensors of a state.
    """

    kept: int
    parts: int

    @staticmethod
    def step(given: Tensor, recurrent: Tensor, state: State, into: State, kept: Tensor) -> None:
        """Write the next state ``into`` buffers, and ``kept`` [B, kept H], from i [B, G H] and g [B, G H]."""

    @staticmethod
    def back(d_state: State, state: State, kept: Tensor, d_given: Tensor, d_recurrent: Tensor) -> State:
        """Write d_i and d_g [B, G H] from the gradients of the next state.

        Returns:
            the gradients of the state before the step, without what comes through g.
        """


class GRUCell:
    """r = sigmoid(i_r + g_r);  z = sigmoid(i_z + g_z);  n = tanh(i_n + r g_n);  h' = (1 - z) n + z h."""

    kept = 4  # r, z, n, g_n
    parts = 1

    @staticmethod
    def step(given: Tensor, recurrent: Tensor, state: State, into: State, kept: Tensor) -> None:
        """See :class:`Cell`."""
        H = state[0].size(1)
        torch.add(given[:, : 2 * H], recurrent[:, : 2 * H], out=kept[:, : 2 * H]).sigmoid_()
        kept[:, 3 * H :] = recurrent[:, 2 * H :]
        reset, update, new, recurrent_new = kept.chunk(4, dim=1)
        torch.addcmul(given[:, 2 * H :], reset, recurrent_new, out=new).tanh_()
        torch.lerp(new, state[0], update, out=into[0])

    @staticmethod
    def back(d_state: State, state: State, kept: Tensor, d_given: Tensor, d_recurrent: Tensor) -> State:
        """See :class:`Cell`."""
        reset, update, new, recurrent_new = kept.chunk(4, dim=1)
        H = new.size(1)
        d_reset, d_update, d_new = d_given.chunk(3, dim=1)
        torch.mul(d_state[0] * (1 - update), 1 - new * new, out=d_new)
        torch.mul(d_new * recurrent_new, reset * (1 - reset), out=d_reset)
        torch.mul(d_state[0] * (state[0] - new), update * (1 - update), out=d_update)
        d_recurrent[:, : 2 * H] = d_given[:, : 2 * H]
        torch.mul(d_new, reset, out=d_recurrent[:, 2 * H :])
        return (d_state[0] * update,)


class LSTMCell:
    """i, f, o = sigmoid(i_x + g_x);  g = tanh(i_g + g_g);  c' = f c + i g;  h' = o tanh(c')."""

    kept = 5  # i, f, g, o, tanh(c')
    parts = 2

    @staticmethod
    def step(given: Tensor, recurrent: Tensor, state: State, into: State, kept: Tensor) -> None:
        """See :class:`Cell`."""
        H = state[0].size(1)
        gates = torch.add(given, recurrent, out=kept[:, : 4 * H])
        gates[:, : 2 * H].sigmoid_()
        enter, forget, new, leave, shown = kept.chunk(5, dim=1)
        new.tanh_()
        leave.sigmoid_()
        torch.addcmul(forget * state[1], enter, new, out=into[1])
        torch.tanh(into[1], out=shown)
        torch.mul(leave, shown, out=into[0])

    @staticmethod
    def back(d_state: State, state: State, kept: Tensor, d_given: Tensor, d_recurrent: Tensor) -> State:
        """See :class:`Cell`."""
        enter, forget, new, leave, shown = kept.chunk(5, dim=1)
        d_cell = d_state[1] + d_state[0] * leave * (1 - shown * shown)
        d_enter, d_forget, d_new, d_leave = d_given.chunk(4, dim=1)
        torch.mul(d_cell * new, enter * (1 - enter), out=d_enter)
        torch.mul(d_cell * state[1], forget * (1 - forget), out=d_forget)
        torch.mul(d_cell * enter, 1 - new * new, out=d_new)
        torch.mul(d_state[0] * shown, leave * (1 - leave), out=d_leave)
        d_recurrent.copy_(d_given)
        return torch.zeros_like(d_state[0]), d_cell * forget


def cell_of(cells: nn.GRU | nn.LSTM) -> type[Cell]:
    """The step of torch's cells."""
    return LSTMCell if isinstance(cells, nn.LSTM) else GRUCell


def states_from(start: State, steps: int) -> State:
    """Buffers [T+1, B, H] for each part of a state, which begin with ``start``."""
    buffers = tuple(part.new_empty(steps + 1, *part.shape) for part in start)
    for buffer, part in zip(buffers, start, strict=True):
        buffer[0] = part
    return buffers


def at(states: State, t: int) -> State:
    """The state [B, H] at time t of states [T, B, H]."""
    return tuple(part[t] for part in states)


def softmax_back(weights: Tensor, d_weights: Tensor) -> Tensor:
    """d_scores of weights = softmax(scores) [B, S]; 0 in padding, as the weights are."""
    weighted = weights * d_weights
    return weighted - weights * weighted.sum(dim=1, keepdim=True)
