"""Monotonic attention in training: against every path that it could have taken, summed one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from attnspan.models.attention.attention import Attention
from attnspan.models.attention.monotonic import ChunkwiseMonotonicWindow, MonotonicWindow, linear_scan
from attnspan.models.attention.normalisers import Softmax
from attnspan.models.attention.scores import GeneralScore
from attnspan.models.memory import Memory

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)


def window_of(width: int = 1) -> MonotonicWindow:
    torch.manual_seed(0)
    if width == 1:
        return MonotonicWindow(query_size=3, memory_size=4, offset=-0.5)
    return ChunkwiseMonotonicWindow(query_size=3, memory_size=4, offset=-0.5, width=width, score=GeneralScore)


def alphas(window: MonotonicWindow, scores: Tensor, mask: Tensor) -> Tensor:
    """alpha [B, T, S], from scores of the same shape."""
    state, chosen = window.start(mask), []
    for t in range(scores.size(1)):
        chosen.append(window.choose(scores[:, t : t + 1], mask.unsqueeze(1), *state))
        state = (chosen[-1].squeeze(1),)
    return torch.cat(chosen, dim=1)


def of_all_paths(p: list[list[float]]) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every way a_1 <= ... <= a_T to stop, S + 1 for the end, and its probability (Raffel et al. 2017, section 2.2)."""
    T, S = len(p), len(p[0])
    for path in itertools.combinations_with_replacement(range(1, S + 2), T):
        probability, last = 1.0, 1
        for t, at in enumerate(path):
            if last == S + 1:
                probability *= float(at == S + 1)
                continue
            for passed in range(last, at):
                probability *= 1 - p[t][passed - 1]
            if at <= S:
                probability *= p[t][at - 1]
            last = at
        yield path, probability


def test_expected_alignments_are_sums_over_all_paths(no_noise: None) -> None:
    """Sources of 4 and of 2 positions, padding full of NaN; what runs off the end is missing from the sum."""
    window, scores = window_of(), 2 * torch.randn(2, 3, 4)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    found = alphas(window, scores.masked_fill(~mask.unsqueeze(1), math.nan), mask)
    for row, S in enumerate((4, 2)):
        p = torch.sigmoid(scores[row, :, :S] - 0.5).tolist()
        expected, everything = torch.zeros(3, 4), 0.0
        for path, probability in of_all_paths(p):
            everything += probability
            for t, at in enumerate(path):
                if at <= S:
                    expected[t, at - 1] += probability
        assert everything == pytest.approx(1)
        torch.testing.assert_close(found[row], expected, atol=1e-12, rtol=0)
    assert (found.sum(-1) < 1).all()


def test_decisions_are_what_certain_probabilities_expect(no_noise: None) -> None:
    """Scores of +-40 leave no doubt: evaluation and training say the same, and who has run off the end stays there."""
    window, mask = window_of(), torch.ones(64, 5, dtype=torch.bool)
    scores = torch.where(torch.rand(64, 4, 5) < 0.4, 40.0, -40.0)
    hard, soft = alphas(window.eval(), scores, mask), alphas(window.train(), scores, mask)
    torch.testing.assert_close(hard, soft, atol=1e-12, rtol=0)
    assert set(hard.sum(-1).unique().tolist()) == {0.0, 1.0}
    ended = hard.sum(-1) == 0
    assert (ended[:, 1:] >= ended[:, :-1]).all()


@pytest.mark.parametrize("width", [2, 3])
def test_a_chunk_is_a_softmax_up_to_where_it_stops(no_noise: None, width: int) -> None:
    """beta = sum_k alpha_k softmax over positions k - w + 1 ... k of the second score."""
    window = window_of(width)
    assert isinstance(window, ChunkwiseMonotonicWindow)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    states, query = torch.randn(2, 5, 4), torch.randn(2, 1, 3)
    window.score.key.weight.data *= 20  # so that a maximum outside of a chunk would drown it
    chosen = alphas(window, torch.randn(2, 1, 5), mask)
    keys = window.keys(states)
    u = window.score(query, keys)
    found = window.spread(chosen, query, keys.masked_fill(~mask.unsqueeze(-1), math.nan), mask.unsqueeze(1))
    for row, S in enumerate((5, 2)):
        expected = torch.zeros(5)
        for k in range(S):
            inside = list(range(max(0, k - width + 1), k + 1))
            expected[inside] += chosen[row, 0, k] * torch.softmax(u[row, 0, inside], dim=0)
        torch.testing.assert_close(found[row, 0], expected, atol=1e-10, rtol=0)


def test_a_scan_is_the_recursion() -> None:
    a, b = torch.rand(3, 13, requires_grad=True), torch.randn(3, 13, requires_grad=True)
    expected, h = [], torch.zeros(3)
    for j in range(13):
        h = a[:, j] * h + b[:, j]
        expected.append(h)
    mix, outcomes = torch.randn(3, 13), (linear_scan(a, b), torch.stack(expected, dim=1))
    torch.testing.assert_close(*outcomes, atol=1e-12, rtol=0)
    gradients = (torch.autograd.grad((mix * one).sum(), (a, b)) for one in outcomes)
    for found, right in zip(*gradients, strict=True):
        torch.testing.assert_close(found, right, atol=1e-12, rtol=0)


def test_nothing_is_lost_in_a_long_source(no_noise: None) -> None:
    """p = 1/2 at 60 positions in float32; the usual closed form, whose product is limited at 1e-10, loses .8 of L1."""
    S, window = 60, MonotonicWindow(query_size=3, memory_size=4, offset=0.0).float()
    at_40 = torch.zeros(1, S)
    at_40[0, 39] = 1.0
    found = window.choose(torch.zeros(1, 1, S), torch.ones(1, 1, S, dtype=torch.bool), at_40)[0, 0]
    exact = torch.tensor([0.0] * 39 + [0.5 ** (j + 1) for j in range(S - 39)])
    assert (found - exact).abs().sum() < 1e-6
    product = torch.cat([torch.ones(1), torch.full((S - 1,), 0.5).cumprod(0)]).float()
    closed = 0.5 * product * torch.cumsum(at_40[0].float() / product.clamp(min=1e-10), 0)
    assert (closed - exact).abs().sum() > 0.5


@pytest.mark.parametrize("width", [1, 3])
def test_padding_never_matters_in_training(no_noise: None, width: int) -> None:
    """Weights, contexts and gradients of an example are the same alone, and next to a longer one."""
    torch.manual_seed(1)
    attention = Attention(
        score=GeneralScore,
        window=lambda **sizes: window_of(width),
        normaliser=Softmax,
        heads=1,
        query_size=3,
        memory_size=4,
    ).train()
    states, query = torch.randn(2, 6, 4), torch.randn(2, 3, 3)
    outcomes = []
    for rows, S in ((slice(0, 2), 6), (slice(1, 2), 2)):
        mask = (torch.arange(6) < torch.tensor([[6], [2]]))[rows, :S]
        memory = attention.prepare(Memory.of(states[rows, :S], mask, (torch.randn(len(mask), 4),)))
        state, contexts = attention.start(memory), []
        for t in range(3):
            context, weights, _, state = attention(query[rows, t : t + 1], memory, state)
            assert (weights[:, 0, 0][~mask] == 0).all()
            contexts.append(context[-1])
        gradients = torch.autograd.grad(torch.cat(contexts).sum(), list(attention.parameters()))
        outcomes.append((torch.cat(contexts), *gradients))
    for a, b in zip(*outcomes, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
