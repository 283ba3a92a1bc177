"""Parts of an attention that remember: what they are given, and values by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attnspan.models.attention.attention import Attention
from attnspan.models.attention.normalisers import Softmax
from attnspan.models.attention.scores import GeneralScore
from attnspan.models.attention.step import AttentionStep
from attnspan.models.attention.windows import GlobalWindow, PreviousMedianWindow
from attnspan.models.memory import Memory

pytestmark = pytest.mark.usefixtures("float64")


class Witness(GeneralScore):
    """Keeps what it is given in its state."""

    remembers = True

    def start(self, keys: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        B = len(keys)
        lengths = mask.sum(dim=1, keepdim=True)
        return lengths, keys.new_zeros(B, 3), keys.new_zeros(B, 4), mask / lengths

    def remember(self, step: AttentionStep, *state: Tensor) -> tuple[Tensor, ...]:
        return state[0], step.query.squeeze(1), step.context.squeeze(1), step.weights.squeeze(1)


class WindowWithMemory(GlobalWindow):
    """Its state is the weights of the step before; it looks where they were less than half."""

    remembers = True

    def start(self, mask: Tensor) -> tuple[Tensor, ...]:
        return (mask * 0.0, mask)

    def forward(self, query: Tensor, step: Tensor, mask: Tensor, *state: Tensor) -> Any:
        return ((state[0] < 0.5) & state[1]).unsqueeze(1), None

    def remember(self, step: AttentionStep, *state: Tensor) -> tuple[Tensor, ...]:
        return (step.weights.squeeze(1), state[1])


def memory_of(*lengths: int) -> Memory:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return Memory.of(torch.randn(len(lengths), max(lengths), 4), mask, (torch.randn(len(lengths), 4),))


def test_a_part_sees_lengths_query_context_and_weights() -> None:
    """A score and a window that both remember: each gets its own state back, and everything of the step."""
    attention = Attention(
        score=Witness, window=WindowWithMemory, normaliser=Softmax, heads=1, query_size=3, memory_size=4
    )
    memory = attention.prepare(memory_of(5, 3))
    steps, seen, real, lengths, *_, uniform = attention.start(memory)
    assert attention.remembers
    assert steps.tolist() == [0, 0]
    assert lengths.tolist() == [[5], [3]]
    torch.testing.assert_close(uniform.sum(dim=1), torch.ones(2))
    assert torch.equal(real, memory.mask)
    assert not seen.any()

    state = attention.start(memory)
    for t in range(1, 4):
        query = torch.randn(2, 1, 3)
        hidden_before = state[1] >= 0.5
        context, weights, _, state = attention(query, memory, state)
        weights = weights.squeeze(1)  # one head
        assert state[0].tolist() == [t, t]
        assert (weights.squeeze(1)[hidden_before] == 0).all()
        for found, expected in zip(state[1:], (weights, memory.mask, None, query, context, weights), strict=True):
            if expected is not None:
                torch.testing.assert_close(found, expected.squeeze(1) if expected.dim() == 3 else expected)


def test_the_median_by_hand() -> None:
    """Half of the weight lies up to it; the position of the largest weight, and the mean, are others."""
    window = PreviousMedianWindow(query_size=3, memory_size=4, half_width=1)
    mask = torch.arange(6) < torch.tensor([[6], [3], [4]])
    (p,) = window.start(mask)
    assert p.tolist() == [[1], [1], [1]]
    weights = torch.tensor([[0.3, 0.3, 0.0, 0.0, 0.0, 0.4], [0.0, 0.0, 1.0, 0.0, 0.0, 0.0], [0.1, 0.0, 0.1, 0.1, 0, 0]])
    step = AttentionStep(query=torch.randn(3, 1, 3), weights=weights.unsqueeze(1), context=torch.randn(3, 1, 4))
    (p,) = window.remember(step, p)
    assert p.tolist() == [[2], [3], [3]]
    positions, factors = window(torch.randn(3, 1, 3), torch.ones(3, 1, dtype=torch.long), mask, p)
    assert factors is None
    assert [(row.nonzero().flatten() + 1).tolist() for row in positions[:, 0]] == [[1, 2], [2, 3], [2, 3]]
