"""Contexts of single steps have the gradients of the product that they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attnspan.kernels.contexts import Contexts
from attnspan.models.decoders.base import Decoder
from tests.conftest import Compose
from tests.models.arms import small

pytestmark = pytest.mark.usefixtures("float64")


def unrolled(first: Tensor, contexts: Callable[[Tensor], Tensor]) -> Tensor:
    """Four steps [B, 4, M], the weights of each made of the context before."""
    found, scores = [], first
    for _ in range(4):
        found.append(contexts(torch.softmax(scores, dim=-1)))
        scores = scores + found[-1][..., :1].tanh() * torch.arange(scores.size(-1))
    return torch.cat(found, dim=1)


def test_gradients_are_those_of_the_product() -> None:
    """Of all steps and of some, again on a graph that is kept, and after a pass that needs none of the states."""
    torch.manual_seed(1)
    states, first = torch.randn(3, 5, 4, requires_grad=True), torch.randn(3, 1, 5, requires_grad=True)
    ours, exact = unrolled(first, Contexts(states)), unrolled(first, lambda weights: weights @ states)
    assert torch.equal(ours, exact)
    drawn = torch.randn_like(ours)
    for steps, inputs in (
        (4, [states, first]),
        (2, [states, first]),
        (4, [first]),
        (3, [states]),
        (4, [states, first]),
    ):
        losses = ((ours * drawn)[:, :steps].sum(), (exact * drawn)[:, :steps].sum())
        gradients = [torch.autograd.grad(loss, inputs, retain_graph=True) for loss in losses]
        for mine, right in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, right, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "wiring", [("forward_agent",), ("coverage", "decoder.heads=2"), ("luong_local_p", "decoder.input_feeding=true")],
    ids=" ".join,
)  # fmt: skip
def test_an_unrolled_decoder_has_the_gradients_of_its_steps(composed: Compose, wiring: tuple[str, ...]) -> None:
    """All of them, those of the encoder too; and no step adds to a sum of the memory's size."""
    model = small(composed, *wiring)
    source, lengths = torch.randint(4, 11, (3, 6)), torch.tensor([6, 2, 4])
    embedded, gradients = torch.randn(3, 5, 5), []
    for unroll in (type(model.decoder).unroll, Decoder.unroll):
        output = unroll(model.decoder, embedded, model.encode(source, lengths)).output
        parameters = [*model.encoder.parameters(), *model.decoder.parameters()]
        gradients.append(torch.autograd.grad(output.sin().sum(), parameters, allow_unused=True))
    for mine, right in zip(*gradients, strict=True):
        assert (mine is None) == (right is None)
        if mine is not None and right is not None:
            torch.testing.assert_close(mine, right, atol=1e-10, rtol=1e-10)
