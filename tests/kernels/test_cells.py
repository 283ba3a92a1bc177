"""One step of a cell on buffers is one step of torch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attnspan.kernels.cells import Cell, GRUCell, LSTMCell, cell_kernel
from attnspan.kernels.compiled import NUMBA_GRU, NUMBA_LSTM

GATES: dict[Cell, int] = {GRUCell(): 3, NUMBA_GRU: 3, LSTMCell(): 4, NUMBA_LSTM: 4}


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("cells", [nn.GRU(3, 5), nn.LSTM(3, 5)], ids=["gru", "lstm"])
def test_a_cell_is_torchs(backend: None, cells: nn.GRU | nn.LSTM, scale: float) -> None:
    """One step on buffers is one step of torch's kernel, also where gates are quite open or shut."""
    cell, B = cell_kernel(cells), 4
    input_weight, hidden_weight, input_bias, hidden_bias = cells.all_weights[0]
    inputs, state = scale * torch.randn(B, 3), tuple(torch.randn(B, 5) for _ in range(cell.parts))
    next_state = tuple(torch.empty(B, 5) for _ in state)
    with torch.no_grad():
        input_gates = torch.addmm(input_bias, inputs, input_weight.t())
        hidden_gates = torch.addmm(hidden_bias, state[0], hidden_weight.t())
        cell.step(input_gates, hidden_gates, state, next_state, torch.empty(B, 5))
        first = tuple(part.unsqueeze(0) for part in state)
        _, last = cells(inputs.unsqueeze(0), first if cell.parts == 2 else first[0])
    for mine, torchs in zip(next_state, last if cell.parts == 2 else (last,), strict=True):
        torch.testing.assert_close(mine, torchs[0], atol=1e-6, rtol=0)
