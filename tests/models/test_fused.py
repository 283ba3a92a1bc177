"""The fused paths: equal to the steps in the precision and at a size that are used, true gradients, little memory.

That they equal the steps in float64 for every wiring is in test_contract.
"""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attnspan.config.instantiate import assemble_model
from attnspan.kernels import additive as fused_additive
from attnspan.kernels import cells as fused_cells
from attnspan.kernels.additive import TensorAttention, additive_attention
from attnspan.kernels.bahdanau import FusedBahdanau
from attnspan.kernels.cells import Cell, GRUCell, LSTMCell, cell_of
from attnspan.kernels.compiled import RowAttention, RowGRU, RowLSTM
from attnspan.kernels.luong import FusedLuong
from attnspan.kernels.recurrence import Unrolled
from attnspan.models.attention.scores import AdditiveScore
from attnspan.models.decoders.bahdanau import BahdanauDecoder
from attnspan.models.decoders.base import Decoder
from attnspan.models.recurrence.fused import FusedRecurrence
from attnspan.models.recurrence.recurrence import BuildCell, Recurrence
from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import Compose
from tests.models.arms import WIRINGS, small


@pytest.fixture(params=["rows", "tensors"])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the steps are computed: kernels that numba compiles, or, as on a GPU, torch's operations."""
    if request.param == "tensors":
        for module in (fused_additive, fused_cells):
            monkeypatch.setattr(module, "is_for_rows", lambda tensor: False)


FUSED = [
    ("bahdanau",),
    ("bahdanau", "rnn=lstm"),
    ("luong_general_feeding",),
    ("luong_general_feeding", "rnn=lstm"),
    ("luong_scaled_dot", "decoder.input_feeding=true"),
]
GATES: dict[type[Cell], int] = {GRUCell: 3, RowGRU: 3, LSTMCell: 4, RowLSTM: 4}


def sized(composed: Compose, *wiring: str) -> Seq2Seq:
    """A model of a size that is used."""
    arm, *overrides = wiring
    config = composed(f"decoder={arm}", "model.hidden_size=64", "model.embedding_size=32", *overrides)
    torch.manual_seed(0)
    return assemble_model(config, source_vocabulary_size=11, target_vocabulary_size=9)


@pytest.mark.parametrize("wiring", FUSED, ids=" ".join)
def test_float32(means: None, composed: Compose, wiring: tuple[str, ...]) -> None:
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


def arguments(cell: type[Cell], wiring: str) -> tuple[list[Tensor], list[Tensor]]:
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
def test_gradients_are_derivatives(float64: None, means: None, cell: type[Cell], wiring: str) -> None:
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
def test_any_output_may_be_left_unused(float64: None, means: None, cell: type[Cell], wiring: str) -> None:
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


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("cells", [nn.GRU(3, 5), nn.LSTM(3, 5)], ids=["gru", "lstm"])
def test_a_cell_is_torchs(means: None, cells: nn.GRU | nn.LSTM, scale: float) -> None:
    """One step on buffers is one step of torch's kernel, also where gates are quite open or shut."""
    cell, B = cell_of(cells), 4
    input_weight, hidden_weight, input_bias, hidden_bias = cells.all_weights[0]
    inputs, state = scale * torch.randn(B, 3), tuple(torch.randn(B, 5) for _ in range(cell.parts))
    into = tuple(torch.empty(B, 5) for _ in state)
    with torch.no_grad():
        given = torch.addmm(input_bias, inputs, input_weight.t())
        asked = torch.addmm(hidden_bias, state[0], hidden_weight.t())
        cell.step(given, asked, state, into, torch.empty(B, 5))
        first = tuple(part.unsqueeze(0) for part in state)
        _, last = cells(inputs.unsqueeze(0), first if cell.parts == 2 else first[0])
    for mine, torchs in zip(into, last if cell.parts == 2 else (last,), strict=True):
        torch.testing.assert_close(mine, torchs[0], atol=1e-6, rtol=0)


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


def test_when_a_recurrence_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In training, over more than one step of one layer."""
    unrolled: list[int] = []
    monkeypatch.setattr(Unrolled, "apply", lambda cell, given, *rest: unrolled.append(given.size(1)) or [given])
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
    monkeypatch.setattr(Unrolled, "apply", lambda cell, given, *rest: fused.append(given) or [given])
    recurrence = FusedRecurrence(cell=cell, input_size=3, hidden_size=5, layers=1, dropout=0.0)
    outputs, _ = recurrence(torch.randn(2, 4, 3))
    assert not fused
    outputs.sum().backward()
    decoder = BahdanauDecoder(
        embedding_size=3,
        hidden_size=5,
        memory_size=4,
        final_size=4,
        rnn=functools.partial(FusedRecurrence, cell=cell, layers=1, dropout=0.0),
        score=functools.partial(AdditiveScore, attention_size=7),
        fused=True,
    )
    assert not decoder.fused


def test_the_way_back_under_autocast() -> None:
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
def test_nothing_of_size_t_times_s_times_a_is_kept(means: None, composed: Compose, wiring: tuple[str, ...]) -> None:
    S, T, A = 40, 40, 64
    assert kept_for_backward(sized(composed, *wiring), S, T) < 2 * T * S * A / 4


def test_a_path_that_keeps_them_is_noticed(composed: Compose) -> None:
    """A mutant of the test above: all positions at once, as Luong's parallel path does with the additive score."""
    assert kept_for_backward(sized(composed, "luong_concat"), 40, 40) >= 2 * 40 * 40 * 64


@pytest.mark.parametrize("wiring", [*WIRINGS, ("coverage", "decoder.fused=true")], ids=" ".join)
def test_what_is_fused(composed: Compose, wiring: tuple[str, ...]) -> None:
    """No more and no less than the equations cover, and only where the config says so."""
    decoder = small(composed, *wiring).decoder
    arm, text = wiring[0], " ".join(wiring)
    products = {"luong_dot", "luong_scaled_dot", "luong_general", "luong_general_feeding"}
    feeding = "input_feeding=true" in text or arm == "luong_general_feeding"
    covered = arm in {"bahdanau", "bahdanau_2015"} or (arm in products and feeding)
    expected = covered and "layers=2" not in text and "fused=false" not in text
    assert getattr(decoder, "fused", False) is expected


LIMIT = {dtype: math.log(torch.finfo(dtype).max) / 3 for dtype in (torch.float32, torch.float64)}
"""The largest key that has a factor."""


def memory_of(keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """States, mask and v for keys [B, S, A]; the last position of the second example is padding."""
    torch.manual_seed(2)
    B, S, A = keys.shape
    mask = torch.ones(B, S, dtype=torch.bool)
    mask[1, -1] = False
    states = torch.randn(B, S, 3, dtype=keys.dtype).masked_fill(~mask.unsqueeze(-1), 0.0)
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
    assert type(attention) is (RowAttention if share < 1 else TensorAttention)
    exact = [tensor.clone().double().requires_grad_() for tensor in (keys, energy)]
    total = exact[0].new_zeros(())
    for query in [*(limit * torch.tensor([0.0, 0.5, -1.01, 1.49, -1.51, 3.0, -1e4], dtype=dtype)), *-keys[:, 0]]:
        query = query.expand(2, 41)
        asked = torch.cat([torch.randn(2, 3, dtype=dtype), query], dim=1)
        weights, context, d_asked = (torch.full((2, n), math.nan, dtype=dtype) for n in (5, 3, 44))
        attention.attend(asked, weights, context)
        asking = query.clone().double().requires_grad_()
        scores = torch.tanh(asking.unsqueeze(1) + exact[0]) @ exact[1]
        right = torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1)
        close(weights, right.detach())
        assert weights[1, -1] == 0
        close(context, (right.unsqueeze(1) @ states.double()).squeeze(1).detach())
        d_context, d_weights = torch.randn(2, 3, dtype=dtype), torch.randn(2, 5, dtype=dtype)
        attention.back(asked, weights, d_context, d_weights, d_asked)
        assert d_asked[:, :3].isnan().all()
        loss = ((right.unsqueeze(1) @ states.double()).squeeze(1) * d_context).sum() + (right * d_weights).sum()
        close(d_asked[:, 3:], torch.autograd.grad(loss, asking, retain_graph=True)[0])
        total = total + loss
    for sum_, right in zip(attention.sums(), torch.autograd.grad(total, exact), strict=True):
        close(sum_, right)


def close(found: Tensor, exact: Tensor) -> None:
    """To a few of its own digits; numbers here are about one."""
    torch.testing.assert_close(found, exact.to(found.dtype), atol=100 * torch.finfo(found.dtype).eps, rtol=0)


THREADS = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
from attnspan.kernels.compiled import RowAttention, RowGRU, RowLSTM, numba
assert numba.get_num_threads() == torch.get_num_threads() == int(sys.argv[1])
torch.manual_seed(1)
keys, query, energy = torch.randn(3, 40, 33), torch.randn(3, 33), torch.randn(33)
mask = torch.ones(3, 40, dtype=torch.bool)
attention = RowAttention(keys, keys, mask, energy)
weights, context, d_query = torch.empty(3, 40), torch.empty(3, 33), torch.empty(3, 33)
attention.attend(query, weights, context)
attention.back(query, weights, context, weights, d_query)
found = [weights, context, d_query, *attention.sums()]
for cell, gates in ((RowGRU, 3), (RowLSTM, 4)):
    given, asked, d_given, d_asked = torch.randn(4, 3, 13 * gates)
    state, into, d_state = torch.randn(3, cell.parts, 3, 13)
    extra = torch.empty(3, 13)
    cell.step(given, asked, state, into, extra)
    needed = cell.needed(asked, state, extra)
    found += [into, asked, extra, *cell.back(d_state, asked, needed, d_given, d_asked), d_given, d_asked]
torch.save(found, sys.argv[2])
"""


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
from attnspan.kernels import compiled as fused_rows
one, result = torch.ones(1, 1), torch.empty(1, 1)
for _ in range(2):
    fused_rows.RowGRU.step(torch.zeros(1, 3), torch.zeros(1, 3), (one,), (result,), torch.empty(1, 1))
print(float(result))
"""


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
    weights, context = torch.empty(2, 4), torch.empty(2, 3)
    query = torch.zeros(2, 5)
    query[0, 1] = math.nan
    RowAttention(keys, states, mask, energy).attend(query, weights, context)
    assert weights[0].isnan().all()
    assert context[0].isnan().all()
    assert not weights[1].isnan().any()
    keys[0, 0, 0] = math.nan
    assert type(additive_attention(keys, states, mask, energy)) is TensorAttention


@pytest.mark.parametrize("cell", [RowGRU, RowLSTM])
def test_gates_that_are_not_numbers_stay_so(cell: type[Cell]) -> None:
    for gate in range(GATES[cell]):
        given, asked = torch.zeros(2, 5 * GATES[cell]), torch.zeros(2, 5 * GATES[cell])
        given[0, 5 * gate + 1] = math.nan
        state, into = ((torch.ones(2, 5),) * cell.parts, tuple(torch.empty(2, 5) for _ in range(cell.parts)))
        cell.step(given, asked, state, into, torch.empty(2, 5))
        assert into[0][0, 1].isnan()
        assert int(into[0].isnan().sum()) == 1


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
