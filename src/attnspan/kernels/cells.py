"""One step of a GRU or LSTM forwards and backwards, on buffers: what the unrolled kernels share.

The equations are those of ``torch.nn.GRU`` and ``torch.nn.LSTM``. i_x is the input's share of gate x and g_x that of
the previous state, biases included, and G the number of gates. ``d_x`` is the gradient of the loss in x.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from attnspan.kernels.backend import uses_numba

State = tuple[Tensor, ...]
"""(h,) of a GRU, (h, c) of an LSTM, each [B, H]; or several such tensors."""


class Cell(Protocol):
    """A cell without weights."""

    @property
    def parts(self) -> int:
        """Tensors of a state."""

    def step(
        self,
        input_gates: Float[Tensor, "B GH"],
        hidden_gates: Float[Tensor, "B n"],
        state: State,
        next_state: State,
        activation: Float[Tensor, "B H"],
    ) -> None:
        """Write ``next_state``, and ``activation``, n of a GRU or tanh(c') of an LSTM, for the backward pass.

        ``hidden_gates`` has g in its first GH columns; activated gates take their place.
        """

    def prepare_backward(
        self, hidden_gates: Float[Tensor, "T B n"], states: State, activation: Float[Tensor, "T B H"]
    ) -> State:
        """What :meth:`backward` needs besides ``hidden_gates``, for all steps at once: tensors [T, B, ...].

        ``states`` are those before each step, the others as the steps left them.
        """

    def backward(
        self,
        d_state: State,
        hidden_gates: Float[Tensor, "B n"],
        saved: State,
        d_input_gates: Float[Tensor, "B GH"],
        d_hidden_gates: Float[Tensor, "B n"],
    ) -> State:
        """Write d_i, and d_g into the first columns of ``d_hidden_gates``, from the gradients of the next state.

        Returned are the gradients of the state before the step, without what comes through g.
        """


class GRUCell:
    """r = sigmoid(i_r + g_r);  z = sigmoid(i_z + g_z);  n = tanh(i_n + r g_n);  h' = (1 - z) n + z h."""

    parts = 1

    def step(
        self, input_gates: Tensor, hidden_gates: Tensor, state: State, next_state: State, activation: Tensor
    ) -> None:
        """See :class:`Cell`: r, z, g_n stay in ``hidden_gates``."""
        H = activation.size(1)
        gates = hidden_gates[:, : 3 * H]
        gates[:, : 2 * H].add_(input_gates[:, : 2 * H]).sigmoid_()
        reset, update, recurrent = gates.chunk(3, dim=1)
        torch.addcmul(input_gates[:, 2 * H :], reset, recurrent, out=activation).tanh_()
        torch.lerp(activation, state[0], update, out=next_state[0])

    def prepare_backward(self, hidden_gates: Tensor, states: State, activation: Tensor) -> State:
        """See :class:`Cell`: dh'/dz and dh'/dn before their activations, and d(r g_n)/dr."""
        reset, update, recurrent = hidden_gates[..., : 3 * activation.size(2)].chunk(3, dim=2)
        of_update = (states[0] - activation) * update * (1 - update)
        of_new = (1 - update) * (1 - activation * activation)
        return (torch.cat([of_update, of_new, recurrent * reset * (1 - reset)], dim=2),)

    def backward(
        self, d_state: State, hidden_gates: Tensor, saved: State, d_input_gates: Tensor, d_hidden_gates: Tensor
    ) -> State:
        """See :class:`Cell`."""
        (slopes,) = saved
        H = d_state[0].size(1)
        reset, update, _ = hidden_gates[:, : 3 * H].chunk(3, dim=1)
        of_state = slopes[:, : 2 * H].unflatten(1, (2, H))
        torch.mul(d_state[0].unsqueeze(1), of_state, out=d_input_gates[:, H:].unflatten(1, (2, H)))  # d_z, d_n
        d_new = d_input_gates[:, 2 * H :]
        torch.mul(d_new, slopes[:, 2 * H :], out=d_input_gates[:, :H])  # d_r
        d_hidden_gates[:, : 2 * H] = d_input_gates[:, : 2 * H]
        torch.mul(d_new, reset, out=d_hidden_gates[:, 2 * H : 3 * H])
        return (d_state[0] * update,)


class LSTMCell:
    """i, f, o = sigmoid(i_x + g_x);  g = tanh(i_g + g_g);  c' = f c + i g;  h' = o tanh(c')."""

    parts = 2

    def step(
        self, input_gates: Tensor, hidden_gates: Tensor, state: State, next_state: State, activation: Tensor
    ) -> None:
        """See :class:`Cell`: i, f, g, o stay in ``hidden_gates``."""
        H = activation.size(1)
        gates = hidden_gates[:, : 4 * H]
        gates += input_gates
        gates[:, : 2 * H].sigmoid_()
        enter, forget, new, leave = gates.chunk(4, dim=1)
        new.tanh_()
        leave.sigmoid_()
        torch.addcmul(forget * state[1], enter, new, out=next_state[1])
        torch.tanh(next_state[1], out=activation)
        torch.mul(leave, activation, out=next_state[0])

    def prepare_backward(self, hidden_gates: Tensor, states: State, activation: Tensor) -> State:
        """See :class:`Cell`: dc'/di, dc'/df, dc'/dg and dh'/do before their activations, and dh'/dc'."""
        enter, forget, new, leave = hidden_gates[..., : 4 * activation.size(2)].chunk(4, dim=2)
        of_enter = new * enter * (1 - enter)
        of_forget = states[1] * forget * (1 - forget)
        of_new = enter * (1 - new * new)
        of_leave = activation * leave * (1 - leave)
        return (torch.cat([of_enter, of_forget, of_new, of_leave, leave * (1 - activation * activation)], dim=2),)

    def backward(
        self, d_state: State, hidden_gates: Tensor, saved: State, d_input_gates: Tensor, d_hidden_gates: Tensor
    ) -> State:
        """See :class:`Cell`."""
        (slopes,) = saved
        d_hidden, d_cell = d_state
        H = d_cell.size(1)
        d_cell = torch.addcmul(d_cell, d_hidden, slopes[:, 4 * H :])
        torch.mul(torch.cat([d_cell, d_cell, d_cell, d_hidden], dim=1), slopes[:, : 4 * H], out=d_input_gates)
        d_hidden_gates[:, : 4 * H] = d_input_gates
        return torch.zeros_like(d_hidden), d_cell * hidden_gates[:, H : 2 * H]


def is_supported(cells: nn.Module) -> bool:
    """Whether the equations above are those of ``cells``: torch's own GRU or LSTM, with biases, without projection."""
    # Exactly these classes, for a subclass may compute something else.
    return type(cells) in (nn.GRU, nn.LSTM) and bool(cells.bias) and not cells.proj_size


def cell_kernel(cells: nn.GRU | nn.LSTM) -> Cell:
    """The fastest :class:`Cell` for torch's cells; they are :func:`is_supported`."""
    is_lstm = isinstance(cells, nn.LSTM)
    if uses_numba(cells.all_weights[0][0]):
        from attnspan.kernels.compiled import NUMBA_GRU, NUMBA_LSTM

        return NUMBA_LSTM if is_lstm else NUMBA_GRU
    return LSTMCell() if is_lstm else GRUCell()


def state_buffers(initial: Sequence[Tensor], steps: int) -> State:
    """Buffers for the states at times 0 ... ``steps``, the first of which is ``initial``."""
    buffers = tuple(part.new_empty(steps + 1, *part.shape) for part in initial)
    for buffer, part in zip(buffers, initial, strict=True):
        buffer[0] = part
    return buffers


def at(states: Sequence[Tensor], t: int) -> State:
    """Each of [T, B, ...] at time t."""
    return tuple(part[t] for part in states)


def backward_without_autocast(
    backward: Callable[..., tuple[Tensor | None, ...]],
) -> Callable[..., tuple[Tensor | None, ...]]:
    """Decorate an autograd function's ``backward``: not differentiable itself, and in the weights' precision."""

    @functools.wraps(backward)
    def in_weights_precision(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.autocast(ctx.saved_tensors[0].device.type, enabled=False):
            return backward(ctx, *gradients)

    return once_differentiable(in_weights_precision)


def softmax_backward(weights: Float[Tensor, "B S"], d_weights: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
    """d_scores of weights = softmax(scores); 0 in padding, as the weights are."""
    weighted = weights * d_weights
    return weighted - weights * weighted.sum(dim=1, keepdim=True)
