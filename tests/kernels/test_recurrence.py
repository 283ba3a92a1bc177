"""The unrolled recurrence equals torch's kernel, and replaces it only where its equations hold."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

from attnspan.kernels.recurrence import UnrolledRecurrence
from attnspan.models.attention.scores import AdditiveScore
from attnspan.models.decoders.bahdanau import BahdanauDecoder
from attnspan.models.decoders.base import Sizes
from attnspan.models.recurrence.fused import FusedRecurrence
from attnspan.models.recurrence.recurrence import BuildCell, Recurrence


@pytest.mark.parametrize("cell", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize("first", [True, False])
def test_a_recurrence_is_torchs(float64: None, cell: type[nn.GRU | nn.LSTM], first: bool) -> None:
    """Outputs, last state and the gradients of all that enters, of each output alone."""
    torch.manual_seed(3)
    fused = FusedRecurrence(cell=cell, input_size=3, hidden_size=5, layers=1, dropout=0.0)
    inputs = torch.randn(4, 6, 3, requires_grad=True)
    state = tuple(torch.randn(4, 1, 5, requires_grad=True) for _ in range(fused.parts)) if first else None
    entered = [inputs, *fused.parameters(), *(state or ())]
    found = []
    for forward in (fused.forward, functools.partial(Recurrence.forward, fused)):
        outputs, last = forward(inputs, state)
        torch.manual_seed(4)
        drawn = [(part * torch.randn_like(part)).sum() for part in (outputs, *last)]
        gradients = [torch.autograd.grad(each, entered, retain_graph=True) for each in drawn]
        found.append([outputs, *last, *(one for each in gradients for one in each)])
    for mine, torchs in zip(*found, strict=True):
        torch.testing.assert_close(mine, torchs, atol=1e-12, rtol=0)


@pytest.mark.parametrize("cell", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_step_without_gradients_is_torchs(float64: None, cell: type[nn.GRU | nn.LSTM], layers: int) -> None:
    """From inputs in one part or in two: the output and the next state."""
    torch.manual_seed(3)
    fused = FusedRecurrence(cell=cell, input_size=7, hidden_size=5, layers=layers, dropout=0.0).eval()
    inputs = torch.randn(4, 1, 7)
    state = tuple(torch.randn(4, layers, 5) for _ in range(fused.parts))
    output, after = Recurrence.forward(fused, inputs, state)
    with torch.no_grad():
        for parts in ((inputs,), tuple(inputs.split([3, 4], dim=-1))):
            found, state_found = fused.step(parts, state)
            for mine, torchs in zip((found, *state_found), (output, *after), strict=True):
                torch.testing.assert_close(mine, torchs.detach(), atol=1e-12, rtol=0)


def test_when_a_recurrence_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In training, over more than one step of one layer."""
    unrolled: list[int] = []
    monkeypatch.setattr(
        UnrolledRecurrence, "apply", lambda cell, given, *rest: unrolled.append(given.size(1)) or [given]
    )
    for layers, steps in ((1, 4), (1, 1), (2, 4)):
        recurrence = FusedRecurrence(cell=nn.GRU, input_size=3, hidden_size=5, layers=layers, dropout=0.0)
        recurrence(torch.randn(2, steps, 3))
        with torch.no_grad():
            recurrence(torch.randn(2, steps, 3))
    assert unrolled == [4]


class OwnGRU(nn.GRU):
    """Somebody's own."""


@pytest.mark.parametrize(
    "cell",
    [nn.RNN, OwnGRU, functools.partial(nn.GRU, bias=False), functools.partial(nn.LSTM, proj_size=2)],
    ids=["rnn", "own", "without bias", "with projection"],
)
def test_cells_of_another_kind_are_not_fused(cell: BuildCell, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernels do not compute is left to torch."""
    fused: list[Tensor] = []
    monkeypatch.setattr(UnrolledRecurrence, "apply", lambda cell, given, *rest: fused.append(given) or [given])
    recurrence = FusedRecurrence(cell=cell, input_size=3, hidden_size=5, layers=1, dropout=0.0)
    outputs, _ = recurrence(torch.randn(2, 4, 3))
    assert not fused
    outputs.sum().backward()
    decoder = BahdanauDecoder(
        sizes=Sizes(embedding=3, hidden=5, memory=4, final=4),
        rnn=functools.partial(FusedRecurrence, cell=cell, layers=1, dropout=0.0),
        score=functools.partial(AdditiveScore, attention_size=7),
        fused=True,
    )
    assert not decoder.fused


def test_the_backward_pass_under_autocast() -> None:
    """In the weights' precision wherever it is called; and only once."""
    recurrence = FusedRecurrence(cell=nn.GRU, input_size=3, hidden_size=5, layers=1, dropout=0.0)
    inputs = torch.randn(2, 4, 3, requires_grad=True)

    def gradient(*, autocast: bool) -> Tensor:
        outputs, _ = recurrence(inputs)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return torch.autograd.grad(outputs.sum(), inputs)[0]

    # The inputs' product is torch's own, and in bfloat16.
    torch.testing.assert_close(gradient(autocast=True), gradient(autocast=False), atol=2e-2, rtol=0)
    outputs, _ = recurrence(inputs)
    (first,) = torch.autograd.grad(outputs.square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
