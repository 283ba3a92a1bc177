"""What a hypothesis can be asked for: n of them, lengths, penalties, no repetition, samples. Against slow loops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnspan.errors import NotFiniteError, SettingError
from attnspan.models.decoding.beam import Beam
from attnspan.models.decoding.greedy import Greedy
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.models.decoding.length_penalty import (
    GnmtLengthPenalty,
    LengthNormalisation,
    LengthPenalty,
    NoLengthPenalty,
)
from attnspan.models.decoding.sample import Sample
from attnspan.models.decoding.strategy import DecodingStrategy, Hypotheses, Specials
from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import Compose
from tests.models.arms import SOURCE_VOCABULARY, TARGET_VOCABULARY, pad, small

SPECIALS = Specials(pad=0, bos=1, eos=2)
WORDS = range(3, TARGET_VOCABULARY)
SOURCES = [[4, 5, 6, 7], [9], [10, 4, 9]]
ARMS = [("plain",), ("bahdanau",), ("luong_local_p", "decoder.window.half_width=1"), ("transformer",)]
Words = tuple[int, ...]


@pytest.fixture(params=ARMS, ids=" ".join)
def model(composed: Compose, request: pytest.FixtureRequest) -> Seq2Seq:
    return small(composed, *request.param, seed=3)


def no_more_than(tokens: int) -> LengthLimit:
    return LengthLimit(ratio=0.0, margin=tokens)


def decode(
    strategy: DecodingStrategy, model: Seq2Seq, sources: Sequence[list[int]] = SOURCES, **options: object
) -> Hypotheses:
    return strategy(model, *pad(list(sources)), specials=SPECIALS, **options)  # type: ignore[arg-type]


def words_of(found: Hypotheses, row: int) -> Words:
    return tuple(found.tokens[row, : int(found.lengths[row])].tolist())


def sequences(longest: int, shortest: int = 0) -> list[Words]:
    """All sequences of words of these lengths."""
    return [one for length in range(shortest, longest + 1) for one in itertools.product(WORDS, repeat=length)]


def measured(
    model: Seq2Seq, source: list[int], of: Sequence[Words]
) -> list[tuple[Words, list[float], list[list[float]] | None]]:
    """Of each sequence: log p of its words and <eos>, one by one, and the weights of these steps."""
    found = []
    for length, group in itertools.groupby(of, len):
        same = list(group)
        read, number = torch.tensor([[1, *one] for one in same]), len(same)
        with torch.no_grad():
            logits, weights = model(torch.tensor([source] * number), torch.full((number,), len(source)), read)
        table = torch.log_softmax(logits.double(), dim=-1)
        for row, one in enumerate(same):
            log_probs = [float(table[row, t, token]) for t, token in enumerate([*one, SPECIALS.eos])]
            found.append((one, log_probs, None if weights is None else weights[row].double().tolist()))
        assert all(len(log_probs) == length + 1 for _, log_probs, _ in found[-number:])
    return found


def scored(
    model: Seq2Seq, source: list[int], of: Sequence[Words], *, alpha: float | None = None, beta: float = 0.0
) -> list[tuple[float, Words]]:
    """log p / ((5 + n) / 6)^alpha + beta sum_i log(min(sum_t w_ti, 1)) of each sequence, the best first."""
    found = []
    for one, log_probs, weights in measured(model, source, of):
        score = math.fsum(log_probs)
        if alpha is not None:
            score /= ((5 + len(log_probs)) / 6) ** alpha
        if beta:
            assert weights is not None
            for position in range(len(source)):
                attention = min(1.0, math.fsum(step[position] for step in weights))
                score += beta * math.log(max(attention, 1e-6))
        found.append((score, one))
    return sorted(found, reverse=True)


def assert_lists(found: Hypotheses, row: int, expected: list[tuple[float, Words]], n: int) -> None:
    """The n best of a source, where scores closer than rounding may change places."""
    lists = [words_of(found, row * n + k) for k in range(n)]
    scores = {words: score for score, words in expected}
    assert len(set(lists)) == n
    assert set(lists) <= set(scores)
    assert [scores[words] for words in lists] == pytest.approx([score for score, _ in expected[:n]], abs=1e-5)
    assert not found.truncated[row * n : (row + 1) * n].any()


ALL = 1 + 6 + 6**2 + 6**3
"""All prefixes of up to two of six words, and those that are cut behind them: so many slots let none go."""


# ---- n-best lists and penalties


@pytest.mark.parametrize("alpha", [None, 0.6, 6.0])
def test_n_best_are_the_best_of_all(model: Seq2Seq, alpha: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the beam looks at every step whether it may stop; an alpha of 6 prefers the longest."""
    penalty = NoLengthPenalty() if alpha is None else GnmtLengthPenalty(alpha=alpha)
    wide = Beam(limit=no_more_than(2), beam_size=ALL, length_penalty=penalty)
    monkeypatch.setattr(Beam, "CHECK_EVERY", 1)
    found = decode(wide, model, n_best=9)
    for row, source in enumerate(SOURCES):
        assert_lists(found, row, scored(model, source, sequences(2), alpha=alpha), 9)
    first = decode(wide, model)
    assert [words_of(first, row) for row in range(3)] == [words_of(found, 9 * row) for row in range(3)]


@pytest.mark.parametrize("arm", ARMS[1:3], ids=" ".join)
def test_coverage_penalty_is_its_equation(composed: Compose, arm: Words) -> None:
    """With weights that are exactly 0, too: the local window leaves positions out."""
    model = small(composed, *arm, seed=3)  # type: ignore[arg-type]
    penalty = GnmtLengthPenalty(alpha=0.6)
    wide = Beam(limit=no_more_than(2), beam_size=ALL, length_penalty=penalty, coverage_penalty=0.8)
    found = decode(wide, model, n_best=9)
    for row, source in enumerate(SOURCES):
        expected = scored(model, source, sequences(2), alpha=0.6, beta=0.8)
        without = scored(model, source, sequences(2), alpha=0.6)
        assert len(source) == 1 or [words for _, words in expected] != [words for _, words in without]
        assert_lists(found, row, expected, 9)


def test_length_penalties_by_hand() -> None:
    cases: list[tuple[LengthPenalty, float]] = [
        (NoLengthPenalty(), 1.0),
        (LengthNormalisation(exponent=1.0), 7.0),
        (LengthNormalisation(exponent=0.5), 7**0.5),
        (GnmtLengthPenalty(alpha=1.0), 2.0),
        (GnmtLengthPenalty(alpha=0.0), 1.0),
    ]
    for penalty, expected in cases:
        assert penalty(torch.tensor([7])).tolist() == pytest.approx([expected])


def test_fewer_hypotheses_than_asked_for(model: Seq2Seq) -> None:
    """Of at most one token there are seven, and six that are cut: each once, what ended first."""
    wide = Beam(limit=no_more_than(1), beam_size=ALL, length_penalty=NoLengthPenalty())
    found = decode(wide, model, n_best=20)
    for row, source in enumerate(SOURCES):
        rows = slice(20 * row, 20 * row + 20)
        lists = [words_of(found, 20 * row + k) for k in range(20)]
        assert lists[:7] == [words for _, words in scored(model, source, sequences(1))]
        is_found = (found.log_prob[rows] > -torch.inf).tolist()
        assert found.truncated[rows].tolist() == [False] * 7 + [True] * 6 + [False] * 7
        assert sorted(lists[7:13]) == sequences(1, 1)
        assert is_found == [True] * 13 + [False] * 7


def test_a_strategy_says_how_many_it_finds(composed: Compose) -> None:
    model = small(composed, "plain")
    beam = Beam(limit=no_more_than(2), beam_size=2, length_penalty=NoLengthPenalty())
    with pytest.raises(SettingError, match=r"^n_best: a beam of 2 finds at most 2 hypotheses, not 3"):
        decode(beam, model, n_best=3)
    with pytest.raises(SettingError, match=r"^n_best: greedy decoding finds one hypothesis, not 2"):
        decode(Greedy(limit=no_more_than(2)), model, n_best=2)
    with pytest.raises(SettingError, match=r"^n_best: must be a whole number of at least 1, not 0"):
        decode(beam, model, n_best=0)


# ---- constraints


def repeats(words: Words, n: int) -> bool:
    ngrams = [words[at : at + n] for at in range(len(words) - n + 1)]
    return len(set(ngrams)) < len(ngrams)


@pytest.mark.parametrize(("n", "shortest", "longest"), [(None, 2, 2), (1, 0, 2), (1, 2, 2), (2, 3, 3)])
def test_constraints_leave_the_best_of_what_they_allow(
    model: Seq2Seq, n: int | None, shortest: int, longest: int
) -> None:
    slots = sum(6**length for length in range(longest + 2))
    wide = Beam(
        limit=no_more_than(longest), beam_size=slots, length_penalty=NoLengthPenalty(),
        min_length=shortest, no_repeat_ngram=n,
    )  # fmt: skip
    found = decode(wide, model, n_best=5)
    for row, source in enumerate(SOURCES):
        allowed = [one for one in sequences(longest, shortest) if n is None or not repeats(one, n)]
        assert_lists(found, row, scored(model, source, allowed), 5)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_greedy_decoding_takes_the_best_allowed_token(composed: Compose, n: int) -> None:
    model = small(composed, "bahdanau", seed=3)
    with torch.no_grad():
        model.readout.bias[SPECIALS.eos] -= 3.0
    found = decode(Greedy(limit=no_more_than(12), min_length=2, no_repeat_ngram=n), model)
    bound = 0
    for row, source in enumerate(SOURCES):
        words: list[int] = []
        while len(words) < 12:
            with torch.no_grad():
                logits = model(torch.tensor([source]), torch.tensor([len(source)]), torch.tensor([[1, *words]]))[0][0]
            free = [token for token in WORDS if not repeats((*words, token), n)]
            bound += len(free) < len(WORDS)
            candidates = [*free, SPECIALS.eos] if len(words) >= 2 or not free else free
            best = max(candidates, key=lambda token: float(logits[-1, token]))
            if best == SPECIALS.eos:
                break
            words.append(best)
        assert list(words_of(found, row)) == words
    assert bound


@pytest.mark.parametrize("size", [0, 3])
def test_where_nothing_is_left_a_hypothesis_ends(composed: Compose, size: int) -> None:
    """Six words, none of which may come twice, and no wish to end."""
    model = small(composed, "plain")
    with torch.no_grad():
        model.readout.bias[SPECIALS.eos] = -1e6
    limit, options = no_more_than(10), {"min_length": 8, "no_repeat_ngram": 1}
    strategy: DecodingStrategy = Greedy(limit=limit, **options)
    if size:
        strategy = Beam(limit=limit, beam_size=size, length_penalty=NoLengthPenalty(), **options)  # type: ignore[arg-type]
    found = decode(strategy, model)
    assert not found.truncated.any()
    for row in range(3):
        assert sorted(words_of(found, row)) == list(WORDS)


def test_a_lower_limit_is_raised_to_the_minimum_length(composed: Compose) -> None:
    model = small(composed, "plain")
    with torch.no_grad():
        model.readout.bias[SPECIALS.eos] = 1e6
    assert decode(Greedy(limit=no_more_than(2), min_length=5), model).lengths.tolist() == [5, 5, 5]


# ---- given lengths


def test_given_lengths_greedily(model: Seq2Seq) -> None:
    """The best word at every step, whatever <eos> has, and then <eos>; a length of 0 too."""
    given_lengths = torch.tensor([5, 0, 3])
    found = decode(Greedy(limit=no_more_than(1), min_length=4), model, given_lengths=given_lengths)
    assert found.lengths.tolist() == [5, 0, 3]
    assert not found.truncated.any()
    for row, source in enumerate(SOURCES):
        words: list[int] = []
        total = 0.0
        for _ in range(int(given_lengths[row]) + 1):
            with torch.no_grad():
                logits = model(torch.tensor([source]), torch.tensor([len(source)]), torch.tensor([[1, *words]]))[0][0]
            table = torch.log_softmax(logits[-1].double(), dim=-1).tolist()
            token = max(WORDS, key=table.__getitem__) if len(words) < given_lengths[row] else SPECIALS.eos
            total += table[token]
            words.append(token)
        assert [*words_of(found, row), SPECIALS.eos] == words
        assert float(found.log_prob[row]) == pytest.approx(total, abs=1e-3)


def test_given_lengths_exhaustively(model: Seq2Seq) -> None:
    wide = Beam(limit=no_more_than(9), beam_size=ALL, length_penalty=NoLengthPenalty())
    found = decode(wide, model, given_lengths=torch.tensor([2, 1, 0]), n_best=1)
    for row, (source, length) in enumerate(zip(SOURCES, (2, 1, 0), strict=True)):
        assert_lists(found, row, scored(model, source, sequences(length, length)), 1)


# ---- given tokens


GIVEN = [{0: 5, 2: 8}, {1: 3}, {}]
"""Position to word, for each source."""


def given_tensor() -> torch.Tensor:
    return torch.tensor([[at.get(t, SPECIALS.pad) for t in range(3)] for at in GIVEN])


@pytest.mark.parametrize("options", [{}, {"min_length": 2, "no_repeat_ngram": 1}], ids=["free", "constrained"])
def test_given_tokens_greedily(model: Seq2Seq, options: dict[str, int]) -> None:
    """At its place a given token stands, whatever is forbidden; log p is that of the others."""
    found = decode(Greedy(limit=no_more_than(4), **options), model, given_tokens=given_tensor())
    for row, (source, at) in enumerate(zip(SOURCES, GIVEN, strict=True)):
        read: list[int] = []
        total = 0.0
        while True:
            with torch.no_grad():
                logits = model(torch.tensor([source]), torch.tensor([len(source)]), torch.tensor([[1, *read]]))[0][0]
            table = torch.log_softmax(logits[-1].double(), dim=-1).tolist()
            allowed = [word for word in WORDS if not (options and word in read)]
            if not options or len(read) >= 2:
                allowed.append(SPECIALS.eos)
            token = at.get(len(read), max(allowed, key=table.__getitem__))
            if len(read) == 4 and token != SPECIALS.eos:
                break  # cut at the limit
            total += 0.0 if len(read) in at else table[token]
            if token == SPECIALS.eos:
                break
            read.append(token)
        assert list(words_of(found, row)) == read
        assert float(found.log_prob[row]) == pytest.approx(total, abs=1e-4)


def test_given_tokens_exhaustively(model: Seq2Seq) -> None:
    wide = Beam(limit=no_more_than(2), beam_size=ALL, length_penalty=NoLengthPenalty())
    found = decode(wide, model, given_tokens=given_tensor()[:, :2], n_best=3)
    for row, (source, at) in enumerate(zip(SOURCES, GIVEN, strict=True)):
        at = {t: word for t, word in at.items() if t < 2}
        expected = []
        for words, log_probs, _ in measured(model, source, sequences(2)):
            if all(words[t : t + 1] == (word,) for t, word in at.items() if t <= len(words)):
                expected.append((math.fsum(p for t, p in enumerate(log_probs) if t not in at), words))
        assert_lists(found, row, sorted(expected, reverse=True), 3)


def test_samples_and_given_tokens(model: Seq2Seq) -> None:
    strategy = Sample(limit=no_more_than(4), temperature=1.0, seed=1)
    found = decode(strategy, model, given_tokens=given_tensor(), n_best=5)
    for row in range(15):
        words = words_of(found, row)
        assert all(words[t] == word for t, word in GIVEN[row // 5].items() if t <= len(words))


# ---- sampling


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_are_as_frequent_as_they_are_likely(composed: Compose, temperature: float) -> None:
    model, draws = small(composed, "bahdanau", seed=3), 4000
    sampled = decode(Sample(limit=no_more_than(1), temperature=temperature, seed=5), model, SOURCES[:1], n_best=draws)
    first = [words_of(sampled, row)[:1] for row in range(draws)]
    (_, log_probs, _), *others = measured(model, SOURCES[0], sequences(1))
    likely = {(): log_probs[0]} | {words: each[0] for words, each, _ in others}
    scale = math.fsum(math.exp(value / temperature) for value in likely.values())
    for words, value in likely.items():
        expected = math.exp(value / temperature) / scale
        deviation = math.sqrt(expected * (1 - expected) / draws)
        assert abs(first.count(words) / draws - expected) < 4 * deviation, words


def test_samples_have_the_log_prob_of_the_model(model: Seq2Seq) -> None:
    found = decode(Sample(limit=no_more_than(3), temperature=3.0, seed=1), model, n_best=4)
    assert len({words_of(found, row) for row in range(4)}) > 1
    for row in range(12):
        words = words_of(found, row)
        ((_, log_probs, _),) = measured(model, SOURCES[row // 4], [words])
        expected = math.fsum(log_probs[: len(words) + (not found.truncated[row])])
        assert float(found.log_prob[row]) == pytest.approx(expected, abs=1e-4)


def test_a_cold_sample_is_greedy_and_a_seed_repeats_itself(model: Seq2Seq) -> None:
    limit = no_more_than(8)
    greedy = decode(Greedy(limit=limit), model)
    assert torch.equal(decode(Sample(limit=limit, temperature=1e-9, seed=1), model).tokens, greedy.tokens)
    one, same, other = (decode(Sample(limit=limit, temperature=2.0, seed=seed), model) for seed in (1, 1, 2))
    assert torch.equal(one.tokens, same.tokens)
    assert [words_of(one, row) for row in range(3)] != [words_of(other, row) for row in range(3)]
    many = decode(Sample(limit=limit, temperature=2.0, seed=1), model, n_best=3)
    assert [words_of(many, 3 * row) for row in range(3)] == [words_of(one, row) for row in range(3)]


# ---- what holds for all of them

LIMIT = LengthLimit(ratio=1.0, margin=2)
OPTIONS = st.fixed_dictionaries({"min_length": st.integers(0, 3), "no_repeat_ngram": st.sampled_from([None, 1, 2, 3])})
STRATEGIES = st.one_of(
    st.builds(lambda options: Greedy(limit=LIMIT, **options), OPTIONS),
    st.builds(
        lambda options, temperature: Sample(limit=LIMIT, temperature=temperature, seed=1, **options),
        OPTIONS,
        st.sampled_from([0.5, 2.0]),
    ),
    st.builds(
        lambda options, size, coverage: Beam(
            limit=LIMIT, beam_size=size, length_penalty=GnmtLengthPenalty(alpha=0.6), coverage_penalty=coverage,
            **options,
        ),
        OPTIONS,
        st.integers(2, 5),
        st.sampled_from([0.0, 0.5]),
    ),
)  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(
    arm=st.sampled_from([("bahdanau",), ("luong_local_p",), ("transformer",)]),
    sources=st.lists(st.lists(st.integers(3, SOURCE_VOCABULARY - 1), min_size=1, max_size=9), min_size=1, max_size=4),
    strategy=STRATEGIES,
    is_given=st.booleans(),
    extra=st.integers(0, 3),
)
def test_hypotheses_do_not_know_their_neighbours(
    composed: Compose, arm: tuple[str, ...], sources: list[list[int]], strategy: DecodingStrategy, is_given: bool,
    extra: int,
) -> None:  # fmt: skip
    model = small(composed, *arm, seed=3).double()
    n = 1 if isinstance(strategy, Greedy) else 2
    lengths = [len(source) % 4 for source in sources]

    def decoded(rows: list[int], width: int) -> Hypotheses:
        exact = torch.tensor([lengths[row] for row in rows]) if is_given else None
        padded = pad([sources[row] for row in rows], width)
        return strategy(model, *padded, specials=SPECIALS, with_weights=True, n_best=n, given_lengths=exact)

    together = decoded(list(range(len(sources))), max(map(len, sources)) + extra)
    for row, source in enumerate(sources):
        alone = decoded([row], len(source))
        for k in range(n):
            at = row * n + k
            assert words_of(together, at) == words_of(alone, k)
            assert bool(together.truncated[at]) == bool(alone.truncated[k])
            assert float(together.log_prob[at]) == pytest.approx(float(alone.log_prob[k]), abs=1e-5)
            assert together.weights is not None
            assert alone.weights is not None
            length = int(alone.lengths[k])
            torch.testing.assert_close(
                together.weights[at, :length, : len(source)], alone.weights[k, :length, : len(source)]
            )


def strategies(limit: LengthLimit) -> list[DecodingStrategy]:
    return [
        Greedy(limit=limit),
        Beam(limit=limit, beam_size=3, length_penalty=NoLengthPenalty()),
        Sample(limit=limit, temperature=1.0, seed=1),
    ]


@pytest.mark.parametrize("strategy", strategies(no_more_than(9)), ids=lambda one: type(one).__name__)
def test_scores_that_are_not_finite_are_an_error(composed: Compose, strategy: DecodingStrategy) -> None:
    """All weights NaN, an infinite one, or those of a symbol that one of the sources has."""
    for spoil in ("all", "bias", "symbol"):
        model = small(composed, "bahdanau")
        with torch.no_grad():
            if spoil == "all":
                for parameter in model.parameters():
                    parameter.fill_(torch.nan)
            elif spoil == "bias":
                model.readout.bias[4] = torch.inf
            else:
                model.source_embedding.weight[7] = torch.nan
        with pytest.raises(NotFiniteError, match=r"^the model gives no finite scores"):
            decode(strategy, model)
        if spoil == "symbol":
            decode(strategy, model, SOURCES[1:])


def test_a_beam_sees_scores_that_are_not_finite_before_anything_ends(composed: Compose) -> None:
    """All words lead to NaN, and the beam stops before the first hypothesis has its minimum length."""
    model = small(composed, "bahdanau")
    beam = Beam(limit=no_more_than(12), beam_size=2, length_penalty=NoLengthPenalty(), min_length=9)
    assert decode(beam, model).lengths.min() >= 9
    with torch.no_grad():
        model.target_embedding.weight[3:] = torch.nan
    with pytest.raises(NotFiniteError, match=r"^the model gives no finite scores"):
        decode(beam, model)


@pytest.mark.parametrize("strategy", strategies(no_more_than(9)), ids=lambda one: type(one).__name__)
def test_an_empty_hypothesis_has_the_weights_of_its_arm(
    composed: Compose, model: Seq2Seq, strategy: DecodingStrategy
) -> None:
    """No step, whatever else is in the batch; none at all where the wiring has none."""
    with torch.no_grad():
        model.readout.bias[SPECIALS.eos] = 1e6
    found = decode(strategy, model, with_weights=True)
    assert found.lengths.tolist() == [0, 0, 0]
    if model.has_attention():
        assert found.weights is not None
        assert found.weights.shape == (3, 0, 4)
    else:
        assert found.weights is None
