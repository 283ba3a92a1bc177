"""Exact hard attention: against the sum over every sequence of positions, one by one."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attnspan.errors import InputError
from attnspan.models.attention.transitions import MonotonicTransition, OffsetTransition, Transition
from attnspan.models.decoders.hard import HardAttentionDecoder
from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import Compose
from tests.models.arms import pad, small

pytestmark = pytest.mark.usefixtures("float64")

SOURCES, TARGETS = [[4, 5, 6], [9], [10, 4]], [[1, 4, 5, 6], [1, 7, 8, 4], [1, 4, 4, 8]]
Table = list[list[Tensor]]
"""p(a_t = j | a_{t-1} = i), by i and j, counted from 0."""


def scores(decoder: HardAttentionDecoder, states: Tensor, s: Tensor) -> list[Tensor]:
    """e_tj = s_t W h_j, by j."""
    return [s @ (decoder.transition.score.key.weight @ h) for h in states]


def anywhere(decoder: HardAttentionDecoder, states: Tensor, s: Tensor) -> Table:
    e = scores(decoder, states, s)
    total = sum(x.exp() for x in e)
    return [[x.exp() / total for x in e] for _ in e]


def forward_only(decoder: HardAttentionDecoder, states: Tensor, s: Tensor) -> Table:
    e = scores(decoder, states, s)
    zero = torch.zeros(())
    return [
        [e[j].exp() / sum(x.exp() for x in e[i:]) if j >= i else zero for j in range(len(e))] for i in range(len(e))
    ]


def by_offset(decoder: HardAttentionDecoder, states: Tensor, s: Tensor) -> Table:
    transition, S, table = decoder.transition, len(states), []
    assert isinstance(transition, OffsetTransition)
    weight = torch.cat([transition.query.weight, transition.key.weight], dim=1)
    for i in range(S):
        row = [torch.zeros(())] * S
        legal = [d for d in range(transition.width + 1) if i + d < S]
        moves = [((weight @ torch.cat([s, states[i]]))[d] + transition.query.bias[d]).exp() for d in legal]
        for d, move in zip(legal, moves, strict=True):
            row[i + d] = move / sum(moves)
        table.append(row)
    return table


ARMS: dict[tuple[str, ...], Callable[[HardAttentionDecoder, Tensor, Tensor], Table]] = {
    ("hard_nonmonotonic",): anywhere,
    ("hard_monotonic", "rnn=lstm", "rnn.layers=2"): forward_only,
    ("hard_monotonic",): forward_only,
    ("hard_monotonic_first_order",): by_offset,
    ("hard_monotonic_first_order", "decoder.transition.width=1"): by_offset,
}


def summed(model: Seq2Seq, tables: Callable[..., Table], source: list[int], target: list[int]) -> tuple[Tensor, Tensor]:
    """log p of the next token after each token of ``target``, and where the model expects to look: [T, V], [T, S]."""
    decoder = model.decoder
    assert isinstance(decoder, HardAttentionDecoder)
    memory = model.encode(torch.tensor([source]), torch.tensor([len(source)]))
    states, S, T = memory.states[0], len(source), len(target)
    hidden, _ = decoder.rnn(model.target_embedding(torch.tensor([target])), decoder.bridge(memory.final_state))
    moves = [tables(decoder, states, s) for s in hidden[0]]
    emitted = [
        [torch.softmax(model.readout(torch.tanh(decoder.combine(torch.cat([h, s])))), dim=-1) for h in states]
        for s in hidden[0]
    ]
    log_p, expected = [], []
    for t in range(T):
        ways = [torch.zeros(())] * S  # by the position of step t
        for path in itertools.product(range(S), repeat=t + 1):
            way = torch.ones(())
            for u, (i, j) in enumerate(itertools.pairwise((0, *path))):
                way = way * moves[u][i][j] * (emitted[u][j][target[u + 1]] if u < t else 1)
            ways[path[-1]] = ways[path[-1]] + way
        prior = torch.stack(ways) / sum(ways)
        expected.append(prior)
        log_p.append((prior.unsqueeze(1) * torch.stack(emitted[t])).sum(dim=0).log())
    return torch.stack(log_p), torch.stack(expected)


@pytest.mark.parametrize("arm", ARMS, ids=" ".join)
def test_logits_weights_and_gradients_are_sums_over_all_alignments(composed: Compose, arm: tuple[str, ...]) -> None:
    model = small(composed, *arm)
    parameters = list(model.parameters())
    logits, weights = model(*pad(SOURCES), torch.tensor(TARGETS))
    assert weights is not None
    found, expected = [], []
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        log_p, prior = summed(model, ARMS[arm], source, target)
        torch.testing.assert_close(logits[row], log_p, atol=1e-10, rtol=0)
        torch.testing.assert_close(weights[row, :, : len(source)], prior, atol=1e-10, rtol=0)
        assert (weights[row, :, len(source) :] == 0).all()
        mixed = torch.sin(torch.arange(log_p.numel(), dtype=log_p.dtype)).view_as(log_p)
        expected.append((mixed * log_p).sum() + prior[-1, 0])
        found.append((mixed * logits[row]).sum() + weights[row, -1, 0])
    gradients = (torch.autograd.grad(sum(losses), parameters) for losses in (found, expected))
    for parameter, a, b in zip(model.named_parameters(), *gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9, msg=lambda text, name=parameter[0]: f"{name}: {text}")


@pytest.mark.parametrize("arm", ["hard_monotonic", "hard_monotonic_first_order"])
def test_a_token_moves_what_the_next_step_expects(composed: Compose, arm: str) -> None:
    """The same cells' states, another token: the prior of the next step is another, and of this step it is not."""
    model = small(composed, arm)
    memory = model.encode(*pad([[4, 5, 6, 7]]))
    with torch.no_grad():
        model.target_embedding.weight[:] = 0.0  # tokens differ by their ids alone
    one, other = (model.unroll(torch.tensor([[1, 4, token, 5]]), memory)[1].weights for token in (6, 7))
    assert one is not None
    assert other is not None
    assert torch.equal(one[:, :2], other[:, :2])
    assert (one[:, 2] - other[:, 2]).abs().max() > 1e-4


@pytest.mark.parametrize("make", [MonotonicTransition, OffsetTransition])
def test_no_step_goes_back(composed: Compose, make: type[Transition]) -> None:
    """From one position on, exactly 0 before it; what can be reached sums to 1, and padding is out of reach."""
    arm = "hard_monotonic" if make is MonotonicTransition else "hard_monotonic_first_order"
    transition = small(
        composed, arm, *(["decoder.transition.width=2"] if arm.endswith("order") else [])
    ).decoder.transition
    assert type(transition) is make
    mask = torch.arange(7) < 6
    moves = transition.moves(torch.randn(1, 1, 8), transition.keys(torch.randn(1, 7, 8)), mask.unsqueeze(0))
    for i in range(6):
        at = torch.full((1, 7), -1e30).index_fill(1, torch.tensor([i]), 0.0)
        prior = transition.prior(at, *(part[:, 0] for part in moves)).exp()[0]
        end = 6 if make is MonotonicTransition else min(6, i + 3)
        assert (prior[i:end] > 0).all()
        assert (prior[:i] == 0).all()
        assert (prior[end:] == 0).all()
        torch.testing.assert_close(prior.sum(), torch.ones(()))


@pytest.mark.parametrize("arm", ["hard_nonmonotonic", "hard_monotonic", "hard_monotonic_first_order"])
@pytest.mark.parametrize("factor", [1.0, 40.0])
def test_certain_scores_and_long_sources_in_single_precision(composed: Compose, arm: str, factor: float) -> None:
    """Scores of hundreds, and 150 positions: distributions stay distributions, and gradients are finite."""
    model = small(composed, arm).float()
    with torch.no_grad():
        for parameter in model.decoder.transition.parameters():
            parameter.mul_(factor)
    source, lengths = pad([[4 + at * at % 7 for at in range(150)], [9, 4]])
    logits, weights = model(source, lengths, torch.randint(3, 9, (2, 60)))
    assert weights is not None
    torch.testing.assert_close(logits.exp().sum(dim=-1), torch.ones(2, 60, dtype=torch.float32), atol=1e-4, rtol=0)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 60, dtype=torch.float32), atol=1e-4, rtol=0)
    F.cross_entropy(logits.flatten(0, 1), torch.randint(3, 9, (120,))).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_training_keeps_no_distribution_of_each_position(composed: Compose) -> None:
    """All that waits for the backward pass together has fewer than B T S H numbers, the outputs before readout."""
    model = small(composed, "hard_monotonic", "model.hidden_size=64").train()
    source, lengths = pad([[4 + at % 7 for at in range(40)]] * 2)
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    memory = model.encode(source, lengths)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.unroll(torch.randint(3, 9, (2, 30)), memory)
    assert sum(kept.values()) < 2 * 30 * 40 * 64


def test_dropout_is_training_only(composed: Compose) -> None:
    model = small(composed, "hard_monotonic", "model.dropout=0.3")
    given = *pad(SOURCES), torch.tensor(TARGETS)
    without, again = (model(*given)[0] for _ in range(2))
    assert torch.equal(without, again)
    model.decoder.train()  # and the readout's dropout is not
    assert torch.equal(model(*given)[0], without)
    model.train()
    assert (model(*given)[0] - without).abs().max() > 1e-3


@pytest.mark.parametrize("arm", ["hard_nonmonotonic", "hard_monotonic"])
def test_a_score_with_memory_is_refused(composed: Compose, arm: str) -> None:
    with pytest.raises(InputError, match="must depend on the source and remember nothing, and CoverageScore does not"):
        small(composed, arm, "decoder/score@decoder.transition.score=coverage")
