"""Without numba, the extra ``fast``, torch's operations give the same numbers to within rounding."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attnspan.kernels.backend import backend_of

WIRINGS = ("decoder=plain rnn=lstm", "decoder=bahdanau", "decoder=luong_general_feeding")

STEPS = """
import sys, torch
from attnspan.config.compose import compose_config
from attnspan.config.instantiate import assemble_model
from attnspan.kernels.backend import backend_of

file, backend, *wirings = sys.argv[1:]
if backend == "torch":
    sys.modules["numba"] = None  # its import fails
torch.set_num_threads(1)
numbers = []
for wiring in wirings:
    config = compose_config(*wiring.split(), "model.hidden_size=24", "model.embedding_size=10", "data=reverse")
    torch.manual_seed(0)
    model = assemble_model(config, source_vocabulary_size=11, target_vocabulary_size=9)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(2):
        source, target = torch.tensor([[4, 5, 6, 7], [8, 9, 0, 0]]), torch.tensor([[1, 4, 5], [1, 4, 5]])
        logits, _ = model(source, torch.tensor([4, 2]), target)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        numbers.append(loss)
    numbers += model.state_dict().values()
assert backend_of(next(model.parameters())) == backend
assert ("attnspan.kernels.compiled" in sys.modules) == (backend == "numba")
torch.save(numbers, file)
"""


def train(file: Path, backend: str) -> tuple[list[torch.Tensor], str]:
    """The losses and weights of two updates of each arm, and stderr."""
    command = [sys.executable, "-c", STEPS, str(file), backend, *WIRINGS]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(file), done.stderr


@pytest.mark.slow
def test_arms_train_without_numba(tmp_path: Path) -> None:
    compiled, silence = train(tmp_path / "numba.pt", "numba")
    plain, hint = train(tmp_path / "torch.pt", "torch")
    for a, b in zip(compiled, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert silence == ""
    assert len(hint.splitlines()) == 1
    assert "pip install 'attnspan[fast]'" in hint


def test_the_name_of_what_computes() -> None:
    assert backend_of(torch.ones(1)) == "numba"
    assert backend_of(torch.ones(1, dtype=torch.bfloat16)) == "torch"
    assert backend_of(torch.ones(1, device="meta")) == "torch"
