"""Beam decoding: a beam of one is greedy, a wide one is exhaustive, and no hypothesis knows its neighbours."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnspan.models.decoding.beam import Beam
from attnspan.models.decoding.greedy import Greedy
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.models.decoding.length_penalty import LengthNormalisation
from attnspan.models.decoding.strategy import Specials
from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import Compose
from tests.models.arms import SOURCE_VOCABULARY, TARGET_VOCABULARY, WIRING_CASES, WIRINGS, pad, small

SPECIALS = Specials(pad=0, bos=1, eos=2)
SOURCES = [[4, 5, 6, 7, 8, 9, 10], [9], [10, 4, 9]]


@pytest.fixture(params=WIRING_CASES)
def model(composed: Compose, request: pytest.FixtureRequest) -> Seq2Seq:
    return small(composed, *request.param, seed=3)


def beam(size: int, limit: LengthLimit, normalisation: float = 0.0) -> Beam:
    penalty = LengthNormalisation(exponent=normalisation)
    return Beam(limit=limit, beam_size=size, length_penalty=penalty)


def log_probs(model: Seq2Seq, source: list[int], words: list[int]) -> Tensor:
    """[T+1, V] teacher-forced log p behind <bos> and each of the words."""
    with torch.no_grad():
        logits = model(torch.tensor([source]), torch.tensor([len(source)]), torch.tensor([[1, *words]]))[0][0]
    return torch.log_softmax(logits, dim=-1)


def exhaustive(model: Seq2Seq, source: list[int], longest: int, normalisation: float) -> tuple[float, list[int]]:
    """The best of all sequences of up to ``longest`` words that end with <eos>."""
    vocabulary = range(3, model.readout.out_features + extra_words(model, source))
    best: tuple[float, list[int]] = (-math.inf, [0])
    for length in range(longest + 1):
        sequences = list(itertools.product(vocabulary, repeat=length))
        number = len(sequences)
        words = torch.tensor(sequences, dtype=torch.long).view(number, length)
        read = torch.cat([torch.full((number, 1), SPECIALS.bos), words], dim=1)
        target = torch.cat([words, torch.full((number, 1), SPECIALS.eos)], dim=1)
        with torch.no_grad():
            logits = model(torch.tensor([source] * number), torch.full((number,), len(source)), read)[0]
        log_prob = torch.log_softmax(logits, dim=-1).gather(2, target.unsqueeze(-1)).sum(dim=(1, 2))
        top, at = (log_prob / (length + 1) ** normalisation).max(dim=0)
        best = max(best, (float(top), words[at].tolist()))
    return best


def extra_words(model: Seq2Seq, source: list[int]) -> int:
    """Words that the model can copy from a source and its vocabulary lacks."""
    return len({token for token in source if token >= TARGET_VOCABULARY}) if model.decoder.copies else 0


def all_prefixes(model: Seq2Seq) -> int:
    """All of up to two words, and those that are cut behind them: so many places let none go."""
    words = TARGET_VOCABULARY - 3 + max(extra_words(model, source) for source in SOURCES)
    return 1 + words + words**2 + words**3


def test_a_beam_of_one_is_greedy(model: Seq2Seq) -> None:
    limit = LengthLimit(ratio=2.0, margin=3)
    one = beam(1, limit)(model, *pad(SOURCES), specials=SPECIALS, with_weights=True)
    greedy = Greedy(limit=limit)(model, *pad(SOURCES), specials=SPECIALS, with_weights=True)
    assert torch.equal(one.tokens, greedy.tokens)
    assert torch.equal(one.truncated, greedy.truncated)
    torch.testing.assert_close(one.log_prob, greedy.log_prob)


@pytest.mark.parametrize("normalisation", [0.0, 1.0])
def test_a_wide_beam_is_exhaustive(model: Seq2Seq, normalisation: float) -> None:
    with torch.no_grad():
        model.readout.bias[SPECIALS.eos] -= 1.0  # or the empty hypothesis wins too easily
    limit = LengthLimit(ratio=0.0, margin=2)
    found = beam(all_prefixes(model), limit, normalisation)(model, *pad(SOURCES), specials=SPECIALS)
    for row, source in enumerate(SOURCES):
        value, words = exhaustive(model, source, 2, normalisation)
        assert found.tokens[row, : int(found.lengths[row])].tolist() == words
        score = float(found.log_prob[row]) / (len(words) + 1) ** normalisation
        assert score == pytest.approx(value, abs=1e-4)
        assert not found.truncated[row]


@settings(max_examples=40, deadline=None)
@given(
    wiring=st.sampled_from(WIRINGS),
    sources=st.lists(st.lists(st.integers(3, SOURCE_VOCABULARY - 1), min_size=1, max_size=9), min_size=1, max_size=4),
    size=st.integers(1, 6),
    normalisation=st.sampled_from([0.0, 0.7, 1.0]),
    extra=st.integers(0, 3),
)
def test_hypotheses_do_not_know_their_neighbours(
    composed: Compose, wiring: tuple[str, ...], sources: list[list[int]], size: int, normalisation: float, extra: int
) -> None:
    """Whatever else is in the batch, however many, however far padded."""
    model = small(composed, *wiring, seed=3).double()
    decoding = beam(size, LengthLimit(ratio=1.0, margin=3), normalisation)
    together = decoding(model, *pad(sources, max(map(len, sources)) + extra), specials=SPECIALS)
    for row, source in enumerate(sources):
        alone = decoding(model, *pad([source]), specials=SPECIALS)
        length = int(alone.lengths[0])
        assert int(together.lengths[row]) == length
        assert together.tokens[row, :length].tolist() == alone.tokens[0].tolist()
        assert bool(together.truncated[row]) == bool(alone.truncated[0])
        assert float(together.log_prob[row]) == pytest.approx(float(alone.log_prob[0]), abs=1e-5)


def test_log_prob_is_the_models(model: Seq2Seq) -> None:
    found = beam(4, LengthLimit(ratio=2.0, margin=3))(model, *pad(SOURCES), specials=SPECIALS)
    for row, source in enumerate(SOURCES):
        words = found.tokens[row, : int(found.lengths[row])].tolist()
        table = log_probs(model, source, words)
        target = words if found.truncated[row] else [*words, SPECIALS.eos]
        expected = sum(float(table[t, word]) for t, word in enumerate(target))
        assert float(found.log_prob[row]) == pytest.approx(expected, abs=1e-3)


def test_never_below_greedy_where_the_beam_holds_it(model: Seq2Seq) -> None:
    """Ended hypotheses only: one that was cut has not paid for its <eos>."""
    limit, ended = LengthLimit(ratio=0.0, margin=2), 0
    for _ in range(4):
        with torch.no_grad():
            model.readout.bias[SPECIALS.eos] += 1.0  # until greedy search ends
        greedy = Greedy(limit=limit)(model, *pad(SOURCES), specials=SPECIALS)
        wide = beam(all_prefixes(model), limit)(model, *pad(SOURCES), specials=SPECIALS)
        assert (wide.log_prob >= greedy.log_prob - 1e-4)[~greedy.truncated].all()
        ended += int((~greedy.truncated).sum())
    assert ended


def test_a_hypothesis_cut_at_the_limit_is_marked(model: Seq2Seq) -> None:
    with torch.no_grad():
        model.readout.bias[SPECIALS.eos] = -1e6
    found = beam(3, LengthLimit(ratio=2.0, margin=1))(model, *pad(SOURCES), specials=SPECIALS)
    assert found.lengths.tolist() == [15, 3, 7]
    assert found.truncated.all()


def test_a_beam_has_a_slot() -> None:
    with pytest.raises(ValueError, match=r"^beam_size: must be a whole number of at least 1, not 0$"):
        beam(0, LengthLimit(ratio=1.0, margin=1))
    with pytest.raises(ValueError, match=r"^exponent: must be a number of at least 0, not -0\.5$"):
        beam(1, LengthLimit(ratio=1.0, margin=1), -0.5)


@pytest.mark.parametrize("arm", ["plain", "bahdanau", "luong_general", "luong_local_p", "luong_multihead"])
def test_a_beam_that_shares_its_sources_finds_the_same(
    composed: Compose, float64: None, monkeypatch: pytest.MonkeyPatch, arm: str
) -> None:
    """As one with a copy of the source for each slot; examples end at different steps, and the beam shrinks."""
    model = small(composed, arm)
    assert model.decoder.shares_memory
    with torch.no_grad():
        model.readout.bias[SPECIALS.eos] -= 4  # long hypotheses
    torch.manual_seed(3)
    source, lengths = torch.randint(4, 11, (5, 9)), torch.tensor([9, 1, 3, 9, 6])
    penalty = LengthNormalisation(exponent=1.0)
    coverage = 0.0 if arm == "plain" else 0.2
    search = Beam(
        limit=LengthLimit(ratio=2.0, margin=2), beam_size=4, length_penalty=penalty, coverage_penalty=coverage
    )
    found = []
    for shares in (True, False):
        monkeypatch.setattr(model.decoder, "shares_memory", shares)
        found.append(search(model, source, lengths, specials=SPECIALS, n_best=2, with_weights=True))
    shared, copied = found
    assert torch.equal(shared.tokens, copied.tokens)
    torch.testing.assert_close(shared.log_prob, copied.log_prob, atol=1e-9, rtol=0)
    if shared.weights is not None:
        torch.testing.assert_close(shared.weights, copied.weights, atol=1e-9, rtol=0)
