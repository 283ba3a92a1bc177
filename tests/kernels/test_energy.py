"""The energy of one step: its definition, and its gradients against finite differences."""

from __future__ import annotations

import pytest
import torch

from attnspan.kernels.energy import tanh_energy

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("with_keys", [False, True])
def test_energy_is_its_definition(with_keys: bool) -> None:
    features, weight, query, energy = torch.randn(2, 3, 4), torch.randn(5, 4), torch.randn(2, 5), torch.randn(5)
    given = [features, weight, query, energy] + [torch.randn(2, 3, 5)] * with_keys
    found = tanh_energy(*given)
    for b in range(2):
        for s in range(3):
            inner = weight @ features[b, s] + query[b] + (given[4][b, s] if with_keys else 0)
            assert float(found[b, s]) == pytest.approx(float(energy @ torch.tanh(inner)), abs=1e-12)
    assert torch.autograd.gradcheck(tanh_energy, [part.requires_grad_() for part in given])


def test_energy_keeps_no_activations() -> None:
    """What is kept for the backward pass are the arguments: [B, S, A] only as keys."""
    A, kept = 50, []
    features, weight, query = torch.randn(2, 3, 4, requires_grad=True), torch.randn(A, 4), torch.randn(2, A)
    with torch.autograd.graph.saved_tensors_hooks(lambda part: kept.append(part.numel()) or part, lambda part: part):
        tanh_energy(features, weight, query, torch.randn(A))
    assert max(kept) <= A * 4
