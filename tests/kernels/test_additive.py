"""Additive attention on buffers equals its definition, for any keys and queries."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from attnspan.kernels.additive import NumbaAttention, TorchAttention, additive_attention

LIMIT = {dtype: math.log(torch.finfo(dtype).max) / 3 for dtype in (torch.float32, torch.float64)}
"""The largest key that has a factor."""


def memory_of(keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """States, mask and v for keys [B, S, A]; the last position of the second example is padding."""
    torch.manual_seed(2)
    B, S, A = keys.shape
    mask = torch.ones(B, S, dtype=torch.bool)
    mask[1, -1] = False
    states = torch.randn(B, S, 19, dtype=keys.dtype).masked_fill(~mask.unsqueeze(-1), 0.0)
    return states, mask, torch.randn(A, dtype=keys.dtype) / A


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.01, 0.999, 1.001, 1000.0], ids=lambda share: f"{share} of the limit")
def test_additive_attention_is_its_definition(dtype: torch.dtype, share: float) -> None:
    """And its gradients are autograd's of it in float64, whatever the keys and queries: where exponentials overflow or
    vanish, and where they must not be used."""
    limit = LIMIT[dtype]
    keys = share * limit * torch.linspace(-1, 1, 2 * 5 * 41, dtype=dtype).reshape(5, 2, 41).transpose(0, 1)
    states, mask, energy = memory_of(keys)
    attention = additive_attention(keys, states, mask, energy)
    assert type(attention) is (NumbaAttention if share < 1 else TorchAttention)
    exact = [tensor.clone().double().requires_grad_() for tensor in (keys, energy)]
    total = exact[0].new_zeros(())
    for query in [*(limit * torch.tensor([0.0, 0.5, -1.01, 1.49, -1.51, 3.0, -1e4], dtype=dtype)), *-keys[:, 0]]:
        query = query.expand(2, 41)
        projected = torch.cat([torch.randn(2, 3, dtype=dtype), query], dim=1)
        weights, context, d_projected = (torch.full((2, n), math.nan, dtype=dtype) for n in (5, 19, 44))
        attention.forward(projected, weights, context)
        exact_query = query.clone().double().requires_grad_()
        scores = torch.tanh(exact_query.unsqueeze(1) + exact[0]) @ exact[1]
        right = torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1)
        close(weights, right.detach())
        assert weights[1, -1] == 0
        close(context, (right.unsqueeze(1) @ states.double()).squeeze(1).detach())
        d_context, d_weights = torch.randn(2, 19, dtype=dtype) / 6, torch.randn(2, 5, dtype=dtype)
        attention.backward(projected, weights, d_context, d_weights, d_projected)
        assert d_projected[:, :3].isnan().all()
        loss = ((right.unsqueeze(1) @ states.double()).squeeze(1) * d_context).sum() + (right * d_weights).sum()
        close(d_projected[:, 3:], torch.autograd.grad(loss, exact_query, retain_graph=True)[0])
        total = total + loss
    for sum_, right in zip(attention.sums(), torch.autograd.grad(total, exact), strict=True):
        close(sum_, right)


def close(found: Tensor, exact: Tensor) -> None:
    """To a few of its own digits; numbers here are about one."""
    torch.testing.assert_close(found, exact.to(found.dtype), atol=100 * torch.finfo(found.dtype).eps, rtol=0)
