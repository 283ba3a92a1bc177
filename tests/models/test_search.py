"""Beam search: a beam of one is greedy, a wide one is exhaustive, and no hypothesis knows its neighbours."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from attnspan.models.search import Beam, Greedy, LengthLimit, Specials
from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import ARMS, Compose
from tests.models.arms import pad, small

SPECIALS = Specials(pad=0, bos=1, eos=2)
SOURCES = [[4, 5, 6, 7, 8, 9, 10], [9], [10, 4, 9]]


@pytest.fixture(params=ARMS)
def model(composed: Compose, request: pytest.FixtureRequest) -> Seq2Seq:
    return small(composed, request.param, seed=3)


def beam(size: int, limit: LengthLimit, normalisation: float = 0.0) -> Beam:
    return Beam(limit=limit, beam_size=size, length_normalisation=normalisation)


def log_probs(model: Seq2Seq, source: list[int], words: list[int]) -> Tensor:
    """[T+1, V] teacher-forced log p behind <bos> and each of the words."""
    with torch.no_grad():
        logits = model(torch.tensor([source]), torch.tensor([len(source)]), torch.tensor([[1, *words]]))[0][0]
    return torch.log_softmax(logits, dim=-1)


def exhaustive(model: Seq2Seq, source: list[int], longest: int, normalisation: float) -> tuple[float, list[int]]:
    """The best of all sequences of up to ``longest`` words that end with <eos>."""
    vocabulary = range(3, model.readout.out_features)
    best: tuple[float, list[int]] = (-math.inf, [0])
    for length in range(longest + 1):
        sequences = list(itertools.product(vocabulary, repeat=length))
        number = len(sequences)
        words = torch.tensor(sequences, dtype=torch.long).view(number, length)
        read = torch.cat([torch.full((number, 1), SPECIALS.bos), words], dim=1)
        said = torch.cat([words, torch.full((number, 1), SPECIALS.eos)], dim=1)
        with torch.no_grad():
            logits = model(torch.tensor([source] * number), torch.full((number,), len(source)), read)[0]
        log_prob = torch.log_softmax(logits, dim=-1).gather(2, said.unsqueeze(-1)).sum(dim=(1, 2))
        top, at = (log_prob / (length + 1) ** normalisation).max(dim=0)
        best = max(best, (float(top), words[at].tolist()))
    return best


def test_a_beam_of_one_is_greedy(model: Seq2Seq) -> None:
    limit = LengthLimit(ratio=2.0, margin=3)
    one = beam(1, limit)(model, *pad(SOURCES), specials=SPECIALS, with_weights=True)
    greedy = Greedy(limit=limit)(model, *pad(SOURCES), specials=SPECIALS, with_weights=True)
    assert torch.equal(one.tokens, greedy.tokens)
    assert torch.equal(one.truncated, greedy.truncated)
    torch.testing.assert_close(one.log_prob, greedy.log_prob)


@pytest.mark.parametrize("normalisation", [0.0, 1.0])
def test_a_wide_beam_is_exhaustive(composed: Compose, normalisation: float) -> None:
    """A vocabulary of six words, up to three of them: a beam that can hold all prefixes finds the best of all."""
    for arm in ARMS:
        model = small(composed, arm, seed=5)
        with torch.no_grad():
            model.readout.bias[SPECIALS.eos] -= 1.0  # or the empty hypothesis wins too easily
        limit = LengthLimit(ratio=0.0, margin=3)
        found = beam(6**4, limit, normalisation)(model, *pad(SOURCES), specials=SPECIALS)
        for row, source in enumerate(SOURCES):
            value, words = exhaustive(model, source, 3, normalisation)
            assert found.tokens[row, : int(found.lengths[row])].tolist() == words, arm
            score = float(found.log_prob[row]) / (len(words) + 1) ** normalisation
            assert score == pytest.approx(value, abs=1e-4)
            assert not found.truncated[row]


@pytest.mark.parametrize("size", [2, 5])
def test_hypotheses_do_not_know_their_neighbours(model: Seq2Seq, size: int) -> None:
    search = beam(size, LengthLimit(ratio=2.0, margin=3))
    together = search(model, *pad(SOURCES, 9), specials=SPECIALS)
    for row, source in enumerate(SOURCES):
        alone = search(model, *pad([source]), specials=SPECIALS)
        length = int(alone.lengths[0])
        assert int(together.lengths[row]) == length
        assert together.tokens[row, :length].tolist() == alone.tokens[0].tolist()
        assert bool(together.truncated[row]) == bool(alone.truncated[0])
        torch.testing.assert_close(together.log_prob[row], alone.log_prob[0], atol=1e-4, rtol=1e-4)


def test_log_prob_is_the_models(model: Seq2Seq) -> None:
    found = beam(4, LengthLimit(ratio=2.0, margin=3))(model, *pad(SOURCES), specials=SPECIALS)
    for row, source in enumerate(SOURCES):
        words = found.tokens[row, : int(found.lengths[row])].tolist()
        table = log_probs(model, source, words)
        said = words if found.truncated[row] else [*words, SPECIALS.eos]
        expected = sum(float(table[t, word]) for t, word in enumerate(said))
        assert float(found.log_prob[row]) == pytest.approx(expected, abs=1e-3)


def test_never_below_greedy_where_the_beam_holds_it(model: Seq2Seq) -> None:
    """Ended hypotheses only: one that was cut has not paid for its <eos>."""
    limit = LengthLimit(ratio=0.0, margin=4)
    greedy = Greedy(limit=limit)(model, *pad(SOURCES), specials=SPECIALS)
    wide = beam(6**4, limit)(model, *pad(SOURCES), specials=SPECIALS)
    assert (wide.log_prob >= greedy.log_prob - 1e-4)[~greedy.truncated].all()


def test_cut_at_the_limit_and_said_so(model: Seq2Seq) -> None:
    with torch.no_grad():
        model.readout.bias[SPECIALS.eos] = -1e6
    found = beam(3, LengthLimit(ratio=2.0, margin=1))(model, *pad(SOURCES), specials=SPECIALS)
    assert found.lengths.tolist() == [15, 3, 7]
    assert found.truncated.all()


def test_a_beam_has_a_place() -> None:
    with pytest.raises(ValueError, match=r"search\.beam_size=0"):
        beam(0, LengthLimit(ratio=1.0, margin=1))
    with pytest.raises(ValueError, match=r"search\.length_normalisation"):
        beam(1, LengthLimit(ratio=1.0, margin=1), -0.5)
