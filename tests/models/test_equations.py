"""Every wiring and score against a slow loop, written from the papers' equations and not from the code, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from attnspan.models.decoders import Decoder
from torch import Tensor

from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import ARMS, Compose
from tests.models.arms import TARGET_VOCABULARY, WIRINGS, pad, small

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
    top = max(float(score.detach()) for score in scores)
    powers = [torch.exp(score - top) for score in scores]
    total = sum(powers[1:], powers[0])
    return [power / total for power in powers]


def attend(scores: list[Tensor], states: list[Tensor]) -> Tensor:
    parts = [weight * state for weight, state in zip(softmax(scores), states, strict=True)]
    return sum(parts[1:], parts[0])


@dataclass(frozen=True, kw_only=True)
class Now:
    """What a step may look at: s_{t-1}, the output of step t - 1 (0 at first), y_{t-1}, all h_j, the encoder's f."""

    s: Tensor
    before: Tensor
    y: Tensor
    states: list[Tensor]
    final: Tensor


Equations = Callable[[Decoder, Now], tuple[Tensor, Tensor]]
"""From a step's past to its output and its state s_t."""


def bahdanau(d: Decoder, now: Now) -> tuple[Tensor, Tensor]:
    """A.1.2: e_ij = v^T tanh(W s_{i-1} + U h_j), with the state BEFORE this step; c_i enters the cell."""
    score = d.attention.score
    v = score.energy.weight[0]
    e = [v @ torch.tanh(score.query.weight @ now.s + score.key.weight @ h) for h in now.states]
    s = gru(torch.cat([now.y, attend(e, now.states)]), now.s, d.cell, "")
    return s, s


def luong(scores: Callable[[torch.nn.Module, Tensor, list[Tensor]], list[Tensor]]) -> Equations:
    """Section 3: h_t first (3.3: from [y; h~_{t-1}]), then its scores, then h~_t = tanh(W_c [c_t; h_t])."""

    def step(d: Decoder, now: Now) -> tuple[Tensor, Tensor]:
        h_t = gru(torch.cat([now.y, now.before]) if d.input_feeding else now.y, now.s, d.rnn, "_l0")
        e = scores(d.attention.score, h_t, now.states)
        c_t = attend(e, now.states[: len(e)])
        return torch.tanh(d.combine.weight @ torch.cat([c_t, h_t])), h_t

    return step


def dot(score: torch.nn.Module, h_t: Tensor, states: list[Tensor]) -> list[Tensor]:
    """h_t^T h_s."""
    return [sum(a * b for a, b in zip(h_t, h_s, strict=True)) for h_s in states]


def scaled_dot(score: torch.nn.Module, h_t: Tensor, states: list[Tensor]) -> list[Tensor]:
    """q k^T / sqrt(d_k)."""
    return [product / math.sqrt(len(h_t)) for product in dot(score, h_t, states)]


def general(score: torch.nn.Module, h_t: Tensor, states: list[Tensor]) -> list[Tensor]:
    """h_t^T W_a h_s."""
    return [h_t @ (score.key.weight @ h_s) for h_s in states]


def concat(score: torch.nn.Module, h_t: Tensor, states: list[Tensor]) -> list[Tensor]:
    """v_a^T tanh(W_a [h_t; h_s]), with one W_a."""
    w_a = torch.cat([score.query.weight, score.key.weight], dim=1)
    return [score.energy.weight[0] @ torch.tanh(w_a @ torch.cat([h_t, h_s])) for h_s in states]


def location(score: torch.nn.Module, h_t: Tensor, states: list[Tensor]) -> list[Tensor]:
    """Eq. 8: a_t = softmax(W_a h_t); its top part for short sentences, and no word near the end of long ones."""
    return list(score.position.weight @ h_t)[: len(states)]


def plain(d: Decoder, now: Now) -> tuple[Tensor, Tensor]:
    """The memory is not looked at."""
    s = gru(now.y, now.s, d.rnn, "_l0")
    return s, s


def plain_every_step(d: Decoder, now: Now) -> tuple[Tensor, Tensor]:
    """Cho et al. 2014, section 2.2: h_t = f(h_{t-1}, y_{t-1}, c), c being the same at every t."""
    s = gru(torch.cat([now.y, now.final]), now.s, d.rnn, "_l0")
    return s, s


def plain_wide(d: Decoder, now: Now) -> tuple[Tensor, Tensor]:
    """The output is P s_t."""
    s = gru(now.y, now.s, d.rnn, "_l0")
    return d.narrow.weight @ s, s


EQUATIONS: dict[str, Equations] = {
    "bahdanau": bahdanau,
    "luong_concat": luong(concat),
    "luong_dot": luong(dot),
    "luong_general": luong(general),
    "luong_location": luong(location),
    "luong_scaled_dot": luong(scaled_dot),
    "plain": plain,
    "plain_every_step": plain_every_step,
    "plain_wide": plain_wide,
}


def logits_by_loop(model: Seq2Seq, equations: Equations, source: list[int], target_input: list[int]) -> Tensor:
    states, final = encode(model, source)
    bridge = model.decoder.bridge.project
    s, output = torch.tanh(bridge.weight @ final + bridge.bias), torch.zeros(model.readout.in_features)
    logits = []
    for token in target_input:
        y = model.target_embedding.weight[token]
        output, s = equations(model.decoder, Now(s=s, before=output, y=y, states=states, final=final))
        logits.append(model.readout.weight @ output + model.readout.bias)
    return torch.stack(logits)


def test_every_arm_has_its_equations() -> None:
    assert set(EQUATIONS) == set(ARMS)


SOURCES = [[4, 5, 6, 7, 8], [9], [10, 4, 9]]
TARGETS = [[1, 4, 5, 6], [1, 7, 8, 4], [1, 4, 4, 8]]
SHORT = [("luong_location", "decoder.score.max_length=2", f"decoder.input_feeding={fed}") for fed in ("false", "true")]


def by_loop(model: Seq2Seq, equations: Equations) -> Tensor:
    loops = [logits_by_loop(model, equations, *pair) for pair in zip(SOURCES, TARGETS, strict=True)]
    return torch.stack(loops)


@pytest.mark.parametrize("wiring", WIRINGS + SHORT, ids=" ".join)
def test_logits_and_gradients_equal_the_loop(composed: Compose, wiring: tuple[str, ...]) -> None:
    model = small(composed, *wiring)
    weights = torch.randn(3, 4, TARGET_VOCABULARY)

    logits = model(*pad(SOURCES), torch.tensor(TARGETS))[0]
    expected = by_loop(model, EQUATIONS[wiring[0]])
    torch.testing.assert_close(logits, expected, atol=1e-9, rtol=0)

    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad((logits * weights).sum(), parameters)
    right = torch.autograd.grad((expected * weights).sum(), parameters)
    for name, a, b in zip(names, found, right, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def ask_with_the_new_state(d: Decoder, now: Now) -> tuple[Tensor, Tensor]:
    score, guess = d.attention.score, bahdanau(d, now)[0]
    e = [score.energy.weight[0] @ torch.tanh(score.query.weight @ guess + score.key.weight @ h) for h in now.states]
    s = gru(torch.cat([now.y, attend(e, now.states)]), now.s, d.cell, "")
    return s, s


def feed_the_new_vector(d: Decoder, now: Now) -> tuple[Tensor, Tensor]:
    return luong(general)(d, replace(now, before=luong(general)(d, now)[0]))


def look_at_the_last_position_again(score: torch.nn.Module, h_t: Tensor, states: list[Tensor]) -> list[Tensor]:
    scores = list(score.position.weight @ h_t)
    return [scores[min(s, len(scores) - 1)] for s in range(len(states))]


MUTANTS = {
    "ask with the new state": (("bahdanau",), ask_with_the_new_state),
    "feed the new vector": (("luong_general", "decoder.input_feeding=true"), feed_the_new_vector),
    "do not scale": (("luong_scaled_dot",), luong(dot)),
    "look beyond max_length": (SHORT[0], luong(look_at_the_last_position_again)),
}


@pytest.mark.parametrize(("wiring", "mutant"), MUTANTS.values(), ids=MUTANTS.keys())
def test_the_loop_can_tell_a_mutant(composed: Compose, wiring: tuple[str, ...], mutant: Equations) -> None:
    """Equations that are nearly the paper's do not pass for the paper's."""
    model = small(composed, *wiring)
    right = model(*pad(SOURCES), torch.tensor(TARGETS))[0]
    assert (right - by_loop(model, mutant)).abs().max() > 1e-4


def test_sigmoid_of_twice_is_tanh() -> None:
    """The identity that the fused path rests on."""
    for x in (-3.0, -0.1, 0.0, 2.0):
        assert math.isclose(math.tanh(x), 2 / (1 + math.exp(-2 * x)) - 1, abs_tol=1e-15)
