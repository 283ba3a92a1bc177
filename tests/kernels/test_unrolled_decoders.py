"""The unrolled decoders: equal to the steps in the precision and at the size in use, true gradients, little memory.

That they equal the steps in float64 for every wiring is in tests/models/test_contract.py.
"""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from attnspan.config.instantiate import assemble_model
from attnspan.kernels.bahdanau import FusedBahdanau
from attnspan.kernels.cells import Cell
from attnspan.kernels.luong import FusedLuong
from attnspan.models.decoders.base import Decoder
from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import Compose
from tests.kernels.test_additive import LIMIT
from tests.kernels.test_cells import GATES
from tests.models.arms import PARALLEL_CELLS, WIRING_CASES, small

FUSED = [
    ("bahdanau",),
    ("bahdanau", "rnn=lstm"),
    ("luong_general_feeding",),
    ("luong_general_feeding", "rnn=lstm"),
    ("luong_scaled_dot", "decoder.input_feeding=true"),
]


def sized(composed: Compose, *wiring: str) -> Seq2Seq:
    """A model of a size that is used."""
    arm, *overrides = wiring
    config = composed(f"decoder={arm}", "model.hidden_size=64", "model.embedding_size=32", *overrides)
    torch.manual_seed(0)
    return assemble_model(config, source_vocabulary_size=11, target_vocabulary_size=9)


@pytest.mark.parametrize("wiring", FUSED, ids=" ".join)
def test_float32(backend: None, composed: Compose, wiring: tuple[str, ...]) -> None:
    """1e-5 of the largest number, gradients too."""
    model = sized(composed, *wiring)
    with torch.no_grad():  # look somewhere: as long as all weights are alike, W_a's gradient is what rounding leaves
        for weight in model.decoder.attention.score.parameters():
            weight *= 4
    source, lengths = torch.randint(4, 11, (8, 30)), torch.arange(23, 31)
    embedded, drawn = torch.randn(8, 25, 32), torch.randn(8, 25, 64)
    outcomes = []
    for unroll in (model.decoder.unroll, functools.partial(Decoder.unroll, model.decoder)):
        decoded = unroll(embedded, model.encode(source, lengths))
        loss = (decoded.output * drawn).mean()
        gradients = torch.autograd.grad(loss, [*model.encoder.parameters(), *model.decoder.parameters()])
        outcomes.append((decoded.output, decoded.weights, *gradients))
    for fused, steps in zip(*outcomes, strict=True):
        torch.testing.assert_close(fused, steps, atol=1e-5 * float(steps.detach().abs().max()), rtol=0)


def arguments(cell: Cell, wiring: str) -> tuple[list[Tensor], list[Tensor]]:
    """What goes before and behind the mask of a tiny fused decoder, S = 4, with everything of another size."""
    torch.manual_seed(1)
    B, T, H, A, M, gates = 2, 3, 5, 7 if wiring == "bahdanau" else 5, 6, GATES[cell]
    memory = [(B, T, gates * H), (B, 4, A), (B, 4, M)]
    weights = {
        "bahdanau": [(gates * H, M), (gates * H, H), (gates * H,), (A, H), (A,)],
        "luong": [(gates * H, H), (gates * H, H), (gates * H,), (H, M + H)],
    }[wiring]
    start = [(B, H)] * cell.parts
    return tuple([torch.randn(size, requires_grad=True) for size in sizes] for sizes in (memory, weights + start))


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("wiring", ["bahdanau", "luong"])
def test_gradients_are_derivatives(float64: None, backend: None, cell: Cell, wiring: str) -> None:
    """Against differences of the function itself, for every output and every argument."""
    before, behind = arguments(cell, wiring)
    function = FusedBahdanau if wiring == "bahdanau" else FusedLuong
    mask = torch.tensor([[True] * 4, [True, True, False, False]])

    def unrolled(*tensors: Tensor) -> tuple[Tensor, ...]:
        states = tensors[2].masked_fill(~mask.unsqueeze(-1), 0.0)  # as a memory is
        return function.apply(cell, *tensors[:2], states, mask, *tensors[3:])

    assert torch.autograd.gradcheck(unrolled, (*before, *behind), atol=1e-7)


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("wiring", ["bahdanau", "luong"])
def test_any_output_may_be_left_unused(float64: None, backend: None, cell: Cell, wiring: str) -> None:
    """The gradients of the outputs' sum are the sum of the gradients of each output alone."""
    before, behind = arguments(cell, wiring)
    function = FusedBahdanau if wiring == "bahdanau" else FusedLuong
    mask = torch.ones(2, 4, dtype=torch.bool)
    outputs = function.apply(cell, *before, mask, *behind)
    drawn = [torch.randn_like(output) for output in outputs]
    pairs = list(zip(outputs, drawn, strict=True))
    gradient = functools.partial(torch.autograd.grad, inputs=[*before, *behind], retain_graph=True, allow_unused=True)
    whole = gradient(sum((output * weight).sum() for output, weight in pairs))
    alone = [gradient((output * weight).sum()) for output, weight in pairs]
    for total, *parts in zip(whole, *alone, strict=True):
        torch.testing.assert_close(total, sum(part for part in parts if part is not None), atol=1e-12, rtol=0)


def kept_for_backward(model: Seq2Seq, S: int, T: int) -> int:
    """The most numbers in one tensor that the decoder keeps for the backward pass."""
    memory = model.encode(torch.randint(4, 11, (2, S)), torch.tensor([S, S]))
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.decoder.unroll(torch.randn(2, T, 32), memory)
    return max(sizes)


@pytest.mark.parametrize("wiring", FUSED, ids=" ".join)
def test_nothing_of_size_t_times_s_times_a_is_kept(backend: None, composed: Compose, wiring: tuple[str, ...]) -> None:
    S, T, A = 40, 40, 64
    assert kept_for_backward(sized(composed, *wiring), S, T) < 2 * T * S * A / 4


def test_a_path_that_keeps_them_is_noticed(composed: Compose) -> None:
    """A mutant of the test above: all positions at once, as Luong's parallel path does with the additive score."""
    assert kept_for_backward(sized(composed, "luong_concat"), 40, 40) >= 2 * 40 * 40 * 64


@pytest.mark.parametrize(
    "wiring", [*WIRING_CASES, pytest.param(("coverage", "decoder.fused=true"), id="coverage decoder.fused=true")]
)
def test_what_is_fused(composed: Compose, wiring: tuple[str, ...]) -> None:
    """No more and no less than the equations cover, and only where the config says so."""
    decoder = small(composed, *wiring).decoder
    arm, text = wiring[0], " ".join(wiring)
    products = {"luong_dot", "luong_scaled_dot", "luong_general", "luong_general_feeding"}
    feeding = "input_feeding=true" in text or arm == "luong_general_feeding"
    covered = arm in {"bahdanau", "bahdanau_2015", "bahdanau_pointer"} or (arm in products and feeding)
    expected = covered and "layers=2" not in text and "fused=false" not in text and wiring not in PARALLEL_CELLS
    assert getattr(decoder, "fused", False) is expected


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_large_keys_are_unrolled_alike(float64: None, composed: Compose, scale: float) -> None:
    """Both ways to the activations: the path equals the steps."""
    model = sized(composed, "bahdanau")
    with torch.no_grad():
        model.decoder.attention.score.key.weight *= scale
    memory = model.encode(torch.randint(4, 11, (3, 9)), torch.tensor([9, 4, 7]))
    assert memory.keys is not None
    assert (memory.keys.abs().max() < LIMIT[torch.float64]) == (scale == 1.0)
    embedded = torch.randn(3, 6, 32)
    path, steps = model.decoder.unroll(embedded, memory), Decoder.unroll(model.decoder, embedded, memory)
    torch.testing.assert_close(path.output, steps.output, atol=1e-9, rtol=0)
    torch.testing.assert_close(path.weights, steps.weights, atol=1e-9, rtol=0)
    gradients = [torch.autograd.grad(each.output.sum(), memory.keys, retain_graph=True)[0] for each in (path, steps)]
    torch.testing.assert_close(*gradients, atol=1e-9, rtol=0)
