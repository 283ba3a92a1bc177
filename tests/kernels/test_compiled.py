"""Compiled kernels: threads, their cache, and NaN."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attnspan.kernels.additive import NumbaAttention, TorchAttention, additive_attention
from attnspan.kernels.cells import Cell
from attnspan.kernels.compiled import NUMBA_GRU, NUMBA_LSTM
from tests.kernels.test_additive import memory_of
from tests.kernels.test_cells import GATES

THREADS = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
from attnspan.kernels.additive import NumbaAttention
from attnspan.kernels.compiled import NUMBA_GRU, NUMBA_LSTM, numba
assert numba.get_num_threads() == torch.get_num_threads() == int(sys.argv[1])
torch.manual_seed(1)
keys, query, energy = torch.randn(3, 40, 33), torch.randn(3, 33), torch.randn(33)
mask = torch.ones(3, 40, dtype=torch.bool)
attention = NumbaAttention(keys, keys, mask, energy)
weights, context, d_query = torch.empty(3, 40), torch.empty(3, 33), torch.empty(3, 33)
attention.forward(query, weights, context)
attention.backward(query, weights, context, weights, d_query)
found = [weights, context, d_query, *attention.sums()]
for cell, gates in ((NUMBA_GRU, 3), (NUMBA_LSTM, 4)):
    input_gates, hidden_gates, d_input_gates, d_hidden_gates = torch.randn(4, 3, 13 * gates)
    state, next_state, d_state = torch.randn(3, cell.parts, 3, 13)
    activation = torch.empty(3, 13)
    cell.step(input_gates, hidden_gates, state, next_state, activation)
    saved = cell.prepare_backward(hidden_gates, state, activation)
    d_previous = cell.backward(d_state, hidden_gates, saved, d_input_gates, d_hidden_gates)
    found += [next_state, hidden_gates, activation, *d_previous, d_input_gates, d_hidden_gates]
torch.save(found, sys.argv[2])
"""


@pytest.mark.slow
def test_number_of_threads_changes_last_digits_at_most(tmp_path: Path) -> None:
    """And there are no more than torch has been told to use."""
    files = {threads: tmp_path / f"{threads}.pt" for threads in (1, 2)}
    started = [subprocess.Popen([sys.executable, "-c", THREADS, str(n), str(file)]) for n, file in files.items()]
    assert [process.wait() for process in started] == [0, 0]
    one, two = (torch.load(file) for file in files.values())
    for mine, others in zip(one, two, strict=True):
        torch.testing.assert_close(mine, others, atol=1e-5, rtol=1e-5)


COMPILED = """
import sys, torch
from numba.core import caching
if "nowhere" in sys.argv:
    caching.CacheImpl._locator_classes = []
from attnspan.kernels import compiled
one, result = torch.ones(1, 1), torch.empty(1, 1)
for _ in range(2):
    compiled.NUMBA_GRU.step(torch.zeros(1, 3), torch.zeros(1, 3), (one,), (result,), torch.empty(1, 1))
print(float(result))
"""


@pytest.mark.slow
def test_compiled_all_the_same(tmp_path: Path) -> None:
    """Where nothing can be kept, as in a container that is read-only; and where what was kept is damaged."""

    def step(*words: str) -> str:
        command = [sys.executable, "-c", COMPILED, *words]
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout

    assert step("nowhere") == "0.5\n"
    assert not list(tmp_path.rglob("*.nb?"))
    assert step() == "0.5\n"
    kept = list(tmp_path.rglob("*.nb?"))
    assert len(kept) == 2
    for path in kept:
        path.write_bytes(path.read_bytes()[:100])
    assert step() == "0.5\n"


def test_what_is_not_a_number_stays_so() -> None:
    """A run whose numbers have gone stops; it must not find some that look right."""
    keys = torch.zeros(2, 4, 5)
    states, mask, energy = memory_of(keys)
    weights, context = torch.empty(2, 4), torch.empty(2, states.shape[2])
    query = torch.zeros(2, 5)
    query[0, 1] = math.nan
    NumbaAttention(keys, states, mask, energy).forward(query, weights, context)
    assert weights[0].isnan().all()
    assert context[0].isnan().all()
    assert not weights[1].isnan().any()
    keys[0, 0, 0] = math.nan
    assert type(additive_attention(keys, states, mask, energy)) is TorchAttention


@pytest.mark.parametrize("cell", [NUMBA_GRU, NUMBA_LSTM])
def test_gates_that_are_not_numbers_stay_so(cell: Cell) -> None:
    for gate in range(GATES[cell]):
        input_gates, hidden_gates = torch.zeros(2, 5 * GATES[cell]), torch.zeros(2, 5 * GATES[cell])
        input_gates[0, 5 * gate + 1] = math.nan
        state, next_state = ((torch.ones(2, 5),) * cell.parts, tuple(torch.empty(2, 5) for _ in range(cell.parts)))
        cell.step(input_gates, hidden_gates, state, next_state, torch.empty(2, 5))
        assert next_state[0][0, 1].isnan()
        assert int(next_state[0].isnan().sum()) == 1
