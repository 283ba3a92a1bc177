"""Cells that read a known sequence at once, against slow loops of their recurrences in float64."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attnspan.errors import InputError
from attnspan.models.recurrence.matrix_memory import MLSTM, DeltaNet, GatedLinearAttention, MatrixMemory
from attnspan.models.recurrence.minimal import MinGRU, MinLSTM
from attnspan.models.recurrence.parallel import ParallelCell, ParallelRecurrence
from tests.conftest import Compose
from tests.models.arms import pad, small

I, H, D, TAPS = 3, 4, 2, 3  # noqa: E741
pytestmark = pytest.mark.usefixtures("float64")


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def g(x: Tensor) -> Tensor:
    return torch.stack([each + 0.5 if each >= 0 else sigmoid(each) for each in x])


def min_gru(cell: MinGRU, xs: Tensor, state: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Feng et al. 2024, section 3.1."""
    (h,), hs = state, []
    for x in xs:
        z, candidate = (cell.gates.weight @ x + cell.gates.bias).chunk(2)
        h = (1 - sigmoid(z)) * h + sigmoid(z) * g(candidate)
        hs.append(h)
    return hs, [h]


def min_lstm(cell: MinLSTM, xs: Tensor, state: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Feng et al. 2024, section 3.2."""
    (h,), hs = state, []
    for x in xs:
        f, i, candidate = (cell.gates.weight @ x + cell.gates.bias).chunk(3)
        f, i = sigmoid(f), sigmoid(i)
        h = f / (f + i) * h + i / (f + i) * g(candidate)
        hs.append(h)
    return hs, [h]


def read_by_heads(
    cell: MatrixMemory, xs: Tensor, history: list[Tensor]
) -> tuple[list[tuple[Tensor, ...]], list[Tensor]]:
    """x', u, q, k and v of each step; and the last inputs of the convolution."""
    entered = [*history, *(cell.enter.weight @ x + cell.enter.bias for x in xs)]
    steps = []
    for t in range(len(xs)):
        mixed = sum(cell.filters[tap] * entered[t + tap] for tap in range(TAPS))
        u, x = mixed * sigmoid(mixed), entered[t + TAPS - 1]
        steps.append((x, u, cell.query.weight @ u, cell.key.weight @ u, cell.value.weight @ x))
    return steps, entered[len(xs) :]


def heads(x: Tensor) -> Tensor:
    return x.view(-1, D)


def mlstm(cell: MLSTM, xs: Tensor, state: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Beck et al. 2024, eq. 19-27, without the stabiliser: C and n are the true ones."""
    *history, _, C, n, m = state
    C, n, hs = C.view(-1, D, D) * torch.exp(m)[:, None, None], n.view(-1, D) * torch.exp(m)[:, None], []
    steps, history = read_by_heads(cell, xs, history)
    for x, u, q, k, v in steps:
        i, f = (cell.gates.weight @ u + cell.gates.bias).chunk(2)
        i, f, o = torch.exp(i), sigmoid(f), sigmoid(cell.output_gate.weight @ x + cell.output_gate.bias)
        reads, after = [], []
        for head, (q_, k_, v_) in enumerate(zip(heads(q), heads(k) / math.sqrt(D), heads(v), strict=True)):
            after.append((f[head] * C[head] + i[head] * torch.outer(v_, k_), f[head] * n[head] + i[head] * k_))
            reads.append(after[-1][0] @ q_ / torch.clamp((after[-1][1] @ q_).abs(), min=1.0))
        C, n = (torch.stack(parts) for parts in zip(*after, strict=True))
        hs.append(o * torch.cat(reads))
    return hs, [*history, hs[-1], C.flatten(), n.flatten(), torch.zeros(len(m))]


def norm(x: Tensor, weights: nn.LayerNorm) -> Tensor:
    return weights.weight * (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + 1e-5) + weights.bias


def gla(cell: GatedLinearAttention, xs: Tensor, state: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Yang et al. 2024a, section 4."""
    *history, _, S = state
    S, hs = S.view(-1, D, D), []
    steps, history = read_by_heads(cell, xs, history)
    for x, u, q, k, v in steps:
        a = heads(sigmoid(cell.forget.weight @ u + cell.forget.bias) ** (1 / 16))
        r = cell.output_gate.weight @ x + cell.output_gate.bias
        S = torch.stack([torch.diag(a[h]) @ S[h] + torch.outer(heads(k)[h], heads(v)[h]) for h in range(len(S))])
        hs.append(
            r * sigmoid(r) * torch.cat([norm(S[h].T @ heads(q)[h] / math.sqrt(D), cell.norm) for h in range(len(S))])
        )
    return hs, [*history, hs[-1], S.flatten()]


def delta_net(cell: DeltaNet, xs: Tensor, state: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Yang et al. 2024b, eq. 2."""
    *history, _, S = state
    S, hs = S.view(-1, D, D), []
    steps, history = read_by_heads(cell, xs, history)
    for _, u, q, k, v in steps:
        rate, after = sigmoid(cell.rate.weight @ u + cell.rate.bias), []
        for head, (k_, v_) in enumerate(zip(heads(k), heads(v), strict=True)):
            k_ = k_ / torch.sqrt(k_ @ k_)
            after.append(S[head] + rate[head] * torch.outer(v_ - S[head] @ k_, k_))
        S = torch.stack(after)
        q = [q_ / torch.sqrt(q_ @ q_) for q_ in heads(q)]
        hs.append(torch.cat([norm(S[head] @ q[head], cell.norm) for head in range(len(S))]))
    return hs, [*history, hs[-1], S.flatten()]


matrix = {"head_size": D, "taps": TAPS}
CELLS: dict[str, tuple[Callable[..., ParallelCell], Callable[..., tuple[list[Tensor], list[Tensor]]]]] = {
    "min_gru": (MinGRU, min_gru),
    "min_lstm": (MinLSTM, min_lstm),
    "mlstm": (functools.partial(MLSTM, **matrix), mlstm),
    "gated_linear_attention": (functools.partial(GatedLinearAttention, **matrix), gla),
    "delta_net": (functools.partial(DeltaNet, **matrix), delta_net),
}


@pytest.fixture(params=CELLS)
def name(request: pytest.FixtureRequest) -> str:
    torch.manual_seed(0)
    return str(request.param)


def built(name: str) -> ParallelCell:
    """A cell, its weights large enough that it remembers and forgets."""
    cell = CELLS[name][0](input_size=I, hidden_size=H)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(2.0)
        if isinstance(cell, MLSTM):
            cell.gates.bias[cell.heads :] -= 9.0
    return cell


def drawn_state(cell: ParallelCell, batch: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(batch, size) for size in (*[H] * cell.bridged, *cell.handed_over))


def unscaled(cell: ParallelCell, state: tuple[Tensor, ...]) -> list[Tensor]:
    """The state [B, ...]; of an mLSTM with the true C and n in place of those divided by e^m."""
    if not isinstance(cell, MLSTM):
        return [*state]
    *others, C, n, m = state
    scale = m.exp().unsqueeze(-1)
    return [
        *others,
        *((part.unflatten(1, (cell.heads, -1)) * scale).flatten(1) for part in (C, n)),
        torch.zeros_like(m),
    ]


def test_outputs_states_and_gradients_equal_the_loop(name: str) -> None:
    cell, loop = built(name), CELLS[name][1]
    xs = torch.randn(2, 37, I)  # more than two pieces
    state = drawn_state(cell, 2)
    outputs, final = cell(xs, state, None)
    expected = [loop(cell, xs[row], [part[row] for part in state]) for row in range(2)]
    right = torch.stack([torch.stack(hs) for hs, _ in expected])
    torch.testing.assert_close(outputs, right, atol=1e-9, rtol=1e-9)
    found = unscaled(cell, final)
    for part, rights in zip(found, zip(*(after for _, after in expected), strict=True), strict=True):
        torch.testing.assert_close(part, torch.stack(rights), atol=1e-9, rtol=1e-9)

    mix = torch.randn(outputs.shape)
    sums = [
        (values * mix).sum() + sum(part.square().sum() for part in parts)
        for values, parts in (
            (outputs, found),
            (right, [torch.stack(rights) for rights in zip(*(after for _, after in expected), strict=True)]),
        )
    ]
    names, parameters = zip(*cell.named_parameters(), strict=True)
    for key, a, b in zip(names, *(torch.autograd.grad(total, parameters) for total in sums), strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8, msg=lambda text, key=key: f"{key}: {text}")


def test_resumed_in_the_middle_it_gives_the_whole(name: str) -> None:
    """minGRU-pytorch 0.2.1's minLSTM is off by .32 here."""
    layers = ParallelRecurrence(cell=CELLS[name][0], input_size=I, hidden_size=H, layers=2, dropout=0.0)
    xs = torch.randn(3, 21, I)
    whole, final = layers(xs)
    for pieces in ((1, 20), (18, 3), [1] * 21):
        state, outputs = None, []
        for piece in xs.split([*pieces], dim=1):
            out, state = layers(piece, state)
            outputs.append(out)
        torch.testing.assert_close(torch.cat(outputs, dim=1), whole, atol=1e-10, rtol=1e-9)
        for a, b in zip(state, final, strict=True):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-9)


def test_padding_stays_out(name: str) -> None:
    """Each sequence ends where its own tokens end, whatever stands behind it."""
    layers = ParallelRecurrence(cell=CELLS[name][0], input_size=I, hidden_size=H, layers=2, dropout=0.0)
    xs, lengths = torch.randn(3, 7, I), torch.tensor([7, 1, 3])
    poisoned = xs.clone()
    for row, length in enumerate(lengths):
        poisoned[row, length:] = float("nan")
    outputs, final = layers.read(poisoned, lengths)
    for row, length in enumerate(lengths):
        alone, after = layers(xs[row : row + 1, :length])
        torch.testing.assert_close(outputs[row, :length], alone[0], atol=1e-12, rtol=0)
        for together, by_itself in zip(final, after, strict=True):
            torch.testing.assert_close(together[row], by_itself[0], atol=1e-12, rtol=0)
    outputs[0].sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layers.parameters())


def test_large_inputs_do_not_overflow(name: str) -> None:
    cell = built(name).float()
    state = tuple(part.float() for part in drawn_state(cell, 2))
    outputs, final = cell(1e3 * torch.randn(2, 40, I, dtype=torch.float32), state, None)
    outputs.float().sum().backward()
    assert outputs.isfinite().all()
    assert all(part.isfinite().all() for part in final)
    assert all(parameter.grad.isfinite().all() for parameter in cell.parameters())


def test_what_is_stored_is_found_again() -> None:
    """DeltaNet with rate 1 stores a value under a key and replaces it: d_k keys at most, each with its last value."""
    cell = DeltaNet(input_size=I, hidden_size=4, head_size=4, taps=2)
    with torch.no_grad():
        cell.rate.weight.zero_()
        cell.rate.bias.fill_(50.0)
    keys, values = torch.eye(4)[[0, 2, 0, 3]], torch.randn(4, 4)
    q, k, v = (part[None, None] for part in (torch.eye(4)[[0, 2, 0, 2]], keys, values))
    read, _ = cell.attend(q, k, v, torch.zeros(1, 4, 4), (torch.zeros(1, 16),), None)
    torch.testing.assert_close(read[0, 0], values[[0, 1, 2, 1]])


@pytest.mark.parametrize("cell", ["mlstm", "delta_net"])
@pytest.mark.parametrize("encoder", ["bidirectional", "unidirectional"])
def test_a_decoder_takes_over_the_encoders_memory(composed: Compose, cell: str, encoder: str) -> None:
    """Both directions' heads stand side by side in the decoder's first state, at each source's own end."""
    model = small(composed, "plain", f"rnn={cell}", f"encoder={encoder}", "rnn.cell.head_size=2", "rnn.layers=2")
    memory = model.encode(*pad([[4, 5, 6, 7], [9], [10, 4, 9]]))
    state = model.decoder.start(memory)
    assert [part.shape[1] for part in state] == [2] * len(state)
    alone = model.encode(*pad([[9]]))
    for together, single in zip(state, model.decoder.start(alone), strict=True):
        torch.testing.assert_close(together[1], single[0], atol=1e-12, rtol=0)
    if encoder == "bidirectional":
        embedded = model.source_embedding(torch.tensor([[4, 5, 6, 7]]))
        _, forward = model.encoder.forwards[0](embedded)
        _, backward = model.encoder.backwards[0](embedded.flip(1))
        first = model.decoder.rnn.bridged
        for part, a, b in zip(state[first:], forward[first:], backward[first:], strict=True):
            torch.testing.assert_close(part[0, 0], torch.cat([a[0, 0], b[0, 0]]), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("rnn.cell.head_size=3",), r"rnn\.cell\.head_size: must divide 8, the features of a layer, and 3 does not"),
        (("rnn.cell.taps=1", "rnn.cell.head_size=2"), r"rnn\.cell\.taps: must be at least 2"),
        (("encoder=transformer", "rnn.cell.head_size=2"), r"^decoder: cells with a memory take over the encoder's"),
        (("encoder.layers=2", "rnn.cell.head_size=2"), r"^decoder: cells with a memory take over the encoder's"),
        (("rnn.layers=0", "rnn.cell.head_size=2"), r"rnn\.layers: must be a whole number of at least 1, not 0|layers"),
    ],
)
def test_what_does_not_fit_is_refused(composed: Compose, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(composed, "plain", "rnn=mlstm", *overrides)
