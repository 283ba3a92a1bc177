"""GRU and LSTM without what their gates see of the state (Feng et al. 2024, "Were RNNs all we needed?")."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.models.recurrence.parallel import ParallelCell, last_real, scan
from attnspan.models.recurrence.recurrence import State


class MinGRU(ParallelCell):
    """h_t = (1 - z_t) h_{t-1} + z_t h~_t,  z_t = sigmoid(W_z x_t),  h~_t = g(W_h x_t)  (section 3.1, appendix B).

    g(x) = x + 0.5 for x >= 0, else sigmoid(x): h stays positive, as in the paper's code, which needs it for logarithms.

    Args, the sizes:
        input_size: features of an input.
        hidden_size: H.
    """

    bridged = 1
    handed_over = ()

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gates = nn.Linear(input_size, 2 * hidden_size)  # W_z, W_h

    def forward(
        self, inputs: Float[Tensor, "B T I"], state: State, mask: Bool[Tensor, "B T"] | None
    ) -> tuple[Float[Tensor, "B T H"], State]:
        """See the base class."""
        gate, candidate = self.gates(inputs).to(self.gates.weight.dtype).chunk(2, dim=-1)
        hidden = scan(torch.sigmoid(-gate), torch.sigmoid(gate) * positive(candidate), state[0])
        return hidden, (last_real(hidden, mask),)


class MinLSTM(ParallelCell):
    """h_t = f'_t h_{t-1} + i'_t h~_t,  f' = f / (f + i),  i' = i / (f + i)  (section 3.2).

    f_t = sigmoid(W_f x_t), i_t = sigmoid(W_i x_t), and h~_t is :class:`MinGRU`'s.

    Args, the sizes:
        input_size: features of an input.
        hidden_size: H.
    """

    bridged = 1
    handed_over = ()

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gates = nn.Linear(input_size, 3 * hidden_size)  # W_f, W_i, W_h

    def forward(
        self, inputs: Float[Tensor, "B T I"], state: State, mask: Bool[Tensor, "B T"] | None
    ) -> tuple[Float[Tensor, "B T H"], State]:
        """See the base class."""
        forget, enter, candidate = self.gates(inputs).to(self.gates.weight.dtype).chunk(3, dim=-1)
        odds = F.logsigmoid(forget) - F.logsigmoid(enter)  # log f / i, so f' = sigmoid(odds): never 0 / 0
        hidden = scan(torch.sigmoid(odds), torch.sigmoid(-odds) * positive(candidate), state[0])
        return hidden, (last_real(hidden, mask),)


def positive(x: Tensor) -> Tensor:
    """g of :class:`MinGRU`."""
    return torch.where(x >= 0, x + 0.5, torch.sigmoid(x))
