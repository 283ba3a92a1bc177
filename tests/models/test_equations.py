"""Every wiring and score against a slow loop, written from the papers' equations and not from the code, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import ARMS, Compose
from tests.models.arms import TARGET_VOCABULARY, pad, small

pytestmark = pytest.mark.usefixtures("float64")


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def gru(x: Tensor, h: Tensor, cell: torch.nn.Module, suffix: str) -> Tensor:
    """Cho et al. 2014, in the form that torch documents: the reset gate acts on W_hn h + b_hn."""
    w_i, w_h = getattr(cell, f"weight_ih{suffix}"), getattr(cell, f"weight_hh{suffix}")
    b_i, b_h = getattr(cell, f"bias_ih{suffix}"), getattr(cell, f"bias_hh{suffix}")
    H = len(h)
    i, g = w_i @ x + b_i, w_h @ h + b_h
    r, z = sigmoid(i[:H] + g[:H]), sigmoid(i[H : 2 * H] + g[H : 2 * H])
    n = torch.tanh(i[2 * H :] + r * g[2 * H :])
    return (1 - z) * n + z * h


def encode(model: Seq2Seq, source: list[int]) -> tuple[list[Tensor], Tensor]:
    """h_1 ... h_S and [forward after the last; backward after the first]."""
    encoder, embedded = model.encoder, [model.source_embedding.weight[i] for i in source]
    H = encoder.memory_size // 2
    ahead, behind = [torch.zeros(H)], [torch.zeros(H)]
    for x in embedded:
        ahead.append(gru(x, ahead[-1], encoder.forwards, "_l0"))
    for x in reversed(embedded):
        behind.append(gru(x, behind[-1], encoder.backwards, "_l0"))
    states = [torch.cat([f, b]) for f, b in zip(ahead[1:], reversed(behind[1:]), strict=True)]
    return states, torch.cat([ahead[-1], behind[-1]])


def softmax(scores: list[Tensor]) -> list[Tensor]:
    top = max(float(score) for score in scores)
    powers = [torch.exp(score - top) for score in scores]
    total = sum(powers[1:], powers[0])
    return [power / total for power in powers]


def attend(scores: list[Tensor], states: list[Tensor]) -> Tensor:
    parts = [weight * state for weight, state in zip(softmax(scores), states, strict=True)]
    return sum(parts[1:], parts[0])


def bahdanau(model: Seq2Seq, s: Tensor, states: list[Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
    """A.1.2: e_ij = v^T tanh(W s_{i-1} + U h_j), with the state BEFORE this step; c_i enters the cell."""
    d = model.decoder
    score = d.attention.score
    v = score.energy.weight[0]
    e = [v @ torch.tanh(score.query.weight @ s + score.key.weight @ h) for h in states]
    s = gru(torch.cat([y, attend(e, states)]), s, d.cell, "")
    return s, s


def luong_general(model: Seq2Seq, s: Tensor, states: list[Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
    """Section 3.1: h_t first, then score(h_t, h_s) = h_t^T W h_s, then h~_t = tanh(W_c [c_t; h_t])."""
    d = model.decoder
    h_t = gru(y, s, d.rnn, "_l0")
    scores = [h_t @ (d.attention.score.key.weight @ h) for h in states]
    return torch.tanh(d.combine.weight @ torch.cat([attend(scores, states), h_t])), h_t


def plain(model: Seq2Seq, s: Tensor, states: list[Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
    """The memory is not looked at."""
    s = gru(y, s, model.decoder.rnn, "_l0")
    return s, s


EQUATIONS = {"bahdanau": bahdanau, "luong_general": luong_general, "plain": plain}


def logits_by_loop(model: Seq2Seq, arm: str, source: list[int], target_input: list[int]) -> Tensor:
    states, final = encode(model, source)
    bridge = model.decoder.bridge.project
    s = torch.tanh(bridge.weight @ final + bridge.bias)
    logits = []
    for token in target_input:
        output, s = EQUATIONS[arm](model, s, states, model.target_embedding.weight[token])
        logits.append(model.readout.weight @ output + model.readout.bias)
    return torch.stack(logits)


def test_every_arm_has_its_equations() -> None:
    assert set(EQUATIONS) == set(ARMS)


@pytest.mark.parametrize("arm", ARMS)
def test_logits_and_gradients_equal_the_loop(composed: Compose, arm: str) -> None:
    model = small(composed, arm)
    sources = [[4, 5, 6, 7, 8], [9], [10, 4, 9]]
    targets = [[1, 4, 5, 6], [1, 7, 8, 4], [1, 4, 4, 8]]
    source, lengths = pad(sources)
    weights = torch.randn(3, 4, TARGET_VOCABULARY)

    logits = model(source, lengths, torch.tensor(targets))
    expected = torch.stack(
        [logits_by_loop(model, arm, one, target) for one, target in zip(sources, targets, strict=True)]
    )
    torch.testing.assert_close(logits, expected, atol=1e-9, rtol=0)

    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad((logits * weights).sum(), parameters)
    by_loop = torch.autograd.grad((expected * weights).sum(), parameters)
    for name, a, b in zip(names, found, by_loop, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_the_loop_can_tell_which_state_asks(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant: a Bahdanau decoder that queries the new state instead of the old one does not pass for Bahdanau's."""
    model = small(composed, "bahdanau")

    def mutant(model: Seq2Seq, s: Tensor, states: list[Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
        score, v = model.decoder.attention.score, model.decoder.attention.score.energy.weight[0]
        guess = bahdanau(model, s, states, y)[0]
        e = [v @ torch.tanh(score.query.weight @ guess + score.key.weight @ h) for h in states]
        s = gru(torch.cat([y, attend(e, states)]), s, model.decoder.cell, "")
        return s, s

    monkeypatch.setitem(EQUATIONS, "bahdanau", mutant)
    right = model(torch.tensor([[4, 5, 6]]), torch.tensor([3]), torch.tensor([[1, 4, 5]]))[0]
    wrong = logits_by_loop(model, "bahdanau", [4, 5, 6], [1, 4, 5])
    assert float((right - wrong).abs().max()) > 1e-4


def test_sigmoid_of_twice_is_tanh() -> None:
    """The identity that the fused path rests on."""
    for x in (-3.0, -0.1, 0.0, 2.0):
        assert math.isclose(math.tanh(x), 2 / (1 + math.exp(-2 * x)) - 1, abs_tol=1e-15)
