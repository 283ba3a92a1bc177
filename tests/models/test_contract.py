"""What holds for every arm: padding never matters, weights are weights, parallel paths equal the steps."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from attnspan.config.instantiate import assemble_model
from attnspan.errors import InputError
from attnspan.models.attention.attention import Attention
from attnspan.models.attention.monotonic import MonotonicWindow
from attnspan.models.attention.scores import LocationScore
from attnspan.models.attention.windows import LocalMonotonicWindow, LocalPredictiveWindow
from attnspan.models.decoding.greedy import Greedy
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.models.decoding.strategy import Specials
from attnspan.models.encoders.recurrent import BidirectionalEncoder
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import Recurrence, State
from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import Compose
from tests.models.arms import SOURCE_VOCABULARY, TARGET_VOCABULARY, WIRING_CASES, WIRINGS, pad, small

SPECIALS = Specials(pad=0, bos=1, eos=2)
SOURCES = [[4, 5, 6, 7, 8, 9, 10], [9], [10, 4, 9]]
TARGETS = [[1, 4, 5], [1, 7, 8, 4, 6], [1, 4]]
LONG = [4 + at % 7 for at in range(140)]  # more tokens than luong_location has rows


@pytest.fixture(params=WIRING_CASES)
def model(composed: Compose, request: pytest.FixtureRequest, float64: None) -> Seq2Seq:
    return small(composed, *request.param)


def attentions(model: Seq2Seq) -> list[Attention]:
    """Every attention in the model; none in the plain arms."""
    return [part for part in model.modules() if isinstance(part, Attention)]


def losses_of(model: Seq2Seq, sources: list[list[int]], targets: list[list[int]], *, extra: int = 0) -> Tensor:
    """The loss [B] of each example of a batch; every target is predicted from itself."""
    source, lengths = pad(sources, max(len(row) for row in sources) + extra)
    target, _ = pad(targets, max(len(row) for row in targets) + extra)
    logits = model(source, lengths, target)[0]
    return F.cross_entropy(logits.transpose(1, 2), target, ignore_index=0, reduction="none").sum(dim=1)


def test_alone_as_in_a_batch(model: Seq2Seq) -> None:
    """Loss and gradients of an example do not know what else is in the batch, nor how far it is padded."""
    parameters = list(model.parameters())
    together = losses_of(model, SOURCES, TARGETS, extra=3)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        alone = losses_of(model, [source], [target])
        torch.testing.assert_close(together[row], alone[0], atol=1e-12, rtol=0)
        in_batch = torch.autograd.grad(together[row], parameters, retain_graph=True, allow_unused=True)
        by_itself = torch.autograd.grad(alone[0], parameters, allow_unused=True)
        for a, b in zip(in_batch, by_itself, strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    wiring=st.sampled_from(WIRINGS),
    examples=st.lists(
        st.tuples(
            st.lists(st.integers(3, SOURCE_VOCABULARY - 1), min_size=1, max_size=9),
            st.lists(st.integers(1, TARGET_VOCABULARY - 1), min_size=1, max_size=7),
        ),
        min_size=1,
        max_size=4,
    ),
    extra=st.integers(0, 4),
)
def test_padding_never_matters(
    composed: Compose, wiring: tuple[str, ...], examples: list[tuple[list[int], list[int]]], extra: int
) -> None:
    """Whatever the shapes: a batch's losses and gradients are those of its examples, each alone."""
    model = small(composed, *wiring).double()
    parameters = list(model.parameters())
    sources, targets = ([*part] for part in zip(*examples, strict=True))
    together = losses_of(model, sources, targets, extra=extra)
    alone = torch.cat([losses_of(model, [source], [target]) for source, target in examples])
    torch.testing.assert_close(together, alone, atol=1e-10, rtol=0)
    gradients = (torch.autograd.grad(losses.sum(), parameters, allow_unused=True) for losses in (together, alone))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_a_source_longer_than_any_seen(model: Seq2Seq) -> None:
    """It is read like any other, and its neighbour of one token does not notice."""
    source, lengths = pad([LONG, [9]])
    target = torch.tensor([[1, 4, 5], [1, 7, 8]])
    logits = model(source, lengths, target)[0]
    alone = model(source[1:, :1], lengths[1:], target[1:])[0]
    assert logits[..., :TARGET_VOCABULARY].isfinite().all()
    assert not logits.isnan().any()
    torch.testing.assert_close(logits[1:, :, : alone.size(-1)], alone, atol=1e-12, rtol=0)
    found = Greedy(limit=LengthLimit(ratio=0.0, margin=5))(model, source, lengths, specials=SPECIALS)
    assert found.log_prob.isfinite().all()


def test_nothing_in_padding_can_get_out(model: Seq2Seq) -> None:
    """NaN in the embedding of padding: it enters neither outputs nor gradients of real tokens."""
    source, lengths = pad(SOURCES, 9)
    target, _ = pad([[1, 4, 5, 6]] * 3)
    clean = model(source, lengths, target)[0]
    for poison in (float("nan"), float("inf"), 1e30):
        model.zero_grad()
        with torch.no_grad():
            model.source_embedding.weight[0] = poison
        poisoned = model(source, lengths, target)[0]
        assert torch.equal(clean, poisoned)
        poisoned.sum().backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                assert parameter.grad.isfinite().all(), name


def test_poisoned_memory(model: Seq2Seq) -> None:
    """An encoder may leave anything behind the source: a memory silences it, values and gradients."""
    mask = torch.tensor([[True, True, False], [True, False, False]])
    states = torch.randn(2, 3, model.encoder.memory_size)
    final = tuple(torch.randn(2, model.encoder.final_size) for _ in range(2))
    handed_over = tuple(torch.randn(2, size) for size in model.encoder.handed_over)
    target, in_target = torch.tensor([[1, 4, 5, 6], [1, 7, 8, 4]]), torch.tensor([[4, 5, 0], [7, 0, 0]])

    def unroll(states: Tensor) -> Tensor:
        memory = replace(Memory.of(states, mask, final, handed_over), in_target=in_target)
        return model.unroll(target, model.decoder.prepare(memory))[0][..., :TARGET_VOCABULARY]

    poisoned = states.masked_fill(~mask.unsqueeze(-1), float("nan")).requires_grad_()
    output = unroll(poisoned)
    assert torch.equal(output, unroll(states))
    if output.grad_fn is not None:
        output.sum().backward()
        assert poisoned.grad is None or poisoned.grad.isfinite().all()


def test_weights_are_weights(model: Seq2Seq) -> None:
    source, lengths = pad(SOURCES, 9)
    memory = model.encode(source, lengths)
    weights = model.unroll(torch.randint(1, TARGET_VOCABULARY, (3, 4)), memory)[1].weights
    if weights is None:
        assert not attentions(model)
        return
    assert weights.shape == (3, 4, 9)
    assert (weights >= 0).all()
    assert (weights[~memory.mask.unsqueeze(1).expand_as(weights)] == 0).all()
    total = weights.sum(dim=-1)
    if any(isinstance(part, MonotonicWindow) for part in model.modules()):  # each head may have run off the end
        assert (total <= 1 + 1e-12).all()
    elif any(isinstance(part, LocalPredictiveWindow) for part in model.modules()):  # its Gaussian is not renormalised
        assert (total <= 1 + 1e-12).all()
        assert (total > 0).all()
    else:
        torch.testing.assert_close(total, torch.ones(3, 4), atol=1e-12, rtol=0)


def test_a_mask_that_is_dropped_is_noticed(composed: Compose, float64: None) -> None:
    """A mutant of the rule above: with every position real, padding takes weight, and the test above would see it."""
    model = small(composed, "luong_general")
    source, lengths = pad(SOURCES, 9)
    memory = model.encode(source, lengths)
    mutant = Memory(
        states=memory.states, mask=torch.ones_like(memory.mask), final_state=memory.final_state, keys=memory.keys
    )
    weights = model.decoder.unroll(torch.randn(3, 4, 5), mutant).weights
    assert (weights[~memory.mask.unsqueeze(1).expand_as(weights)] > 0).all()


def at_once(model: Seq2Seq, target: Tensor, memory: Memory) -> tuple[Tensor, State, Tensor | None]:
    """Logits, final state and weights of a known target."""
    logits, decoded = model.unroll(target, memory)
    return logits, decoded.state, decoded.weights


def step_by_step(model: Seq2Seq, target: Tensor, memory: Memory) -> tuple[Tensor, State, Tensor | None]:
    """The same by the steps of decoding."""
    state, logits, weights = model.decoder.start(memory), [], []
    for token in target.unbind(1):
        log_p, decoded = model.step(token, state, memory)
        state = decoded.state
        logits.append(log_p)
        weights.append(decoded.weights)
    seen = [part for part in weights if part is not None]
    return torch.stack(logits, dim=1), state, torch.cat(seen, dim=1) if seen else None


def test_unrolled_steps_equal_the_path(model: Seq2Seq) -> None:
    """Whatever a decoder does with a whole target (parallel, fused), it is what its steps do, gradients included."""
    source, lengths = pad(SOURCES)
    target = torch.randint(1, TARGET_VOCABULARY, (3, 5))
    outcomes = []
    for unroll in (at_once, step_by_step):
        logits, state, weights = unroll(model, target, model.encode(source, lengths))
        drawn = torch.Generator().manual_seed(0)
        finite = logits[..., :TARGET_VOCABULARY]  # a word that can only be copied may have none of the probability
        total = (finite * torch.randn(finite.shape, generator=drawn)).sum()
        if weights is not None:
            total = total + (weights * torch.randn(weights.shape, generator=drawn)).sum()
        gradients = torch.autograd.grad(total, list(model.parameters()), allow_unused=True, materialize_grads=True)
        outcomes.append((logits, *state, weights, *gradients))
    for a, b in zip(*outcomes, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", ["m", "p"])
def test_a_window_is_a_window(composed: Compose, float64: None, kind: str) -> None:
    """Outside of it the weights are exactly 0, and at the ends of a source it is cut and not wrapped."""
    D = 2
    model = small(composed, f"luong_local_{kind}", f"decoder.window.half_width={D}")
    memory = model.encode(*pad(SOURCES, 9))
    weights = model.decoder.unroll(torch.randn(3, 6, 5), memory).weights
    for row, source in enumerate(SOURCES):
        S = len(source)
        for t in range(1, 7):
            seen = (weights[row, t - 1].nonzero().squeeze(1) + 1).tolist()  # positions count from 1
            if kind == "m":
                centre = min(t, S)
                assert seen == list(range(max(1, centre - D), min(S, centre + D) + 1))
            else:
                assert 1 <= len(seen) <= 2 * D
                assert seen == list(range(seen[0], seen[-1] + 1))
                assert seen[-1] <= S
                assert len(seen) >= D or S < D  # p_t lies within the source


def test_hypotheses_do_not_know_their_neighbours(model: Seq2Seq) -> None:
    decoding = Greedy(limit=LengthLimit(ratio=3.0, margin=4))
    everything = decoding(model, *pad(SOURCES, 9), specials=SPECIALS, with_weights=True)
    for batch in ([0], [1], [2, 1, 2]):
        found = decoding(model, *pad([SOURCES[row] for row in batch]), specials=SPECIALS, with_weights=True)
        for at, row in enumerate(batch):
            length = int(everything.lengths[row])
            assert int(found.lengths[at]) == length
            assert found.tokens[at, :length].tolist() == everything.tokens[row, :length].tolist()
            assert bool(found.truncated[at]) == bool(everything.truncated[row])
            torch.testing.assert_close(found.log_prob[at], everything.log_prob[row])
            if found.weights is not None and everything.weights is not None:
                S = len(SOURCES[row])
                torch.testing.assert_close(found.weights[at, :length, :S], everything.weights[row, :length, :S])
                assert found.weights[at, length:].abs().sum() == 0


def test_greedy_by_hand(model: Seq2Seq) -> None:
    """Every token is the argmax of the teacher-forced logits behind the tokens before it; log_prob is their sum."""
    limit = LengthLimit(ratio=1.0, margin=2)
    found = Greedy(limit=limit)(model, *pad(SOURCES), specials=SPECIALS)
    for row, source in enumerate(SOURCES):
        ids = found.tokens[row, : int(found.lengths[row])].tolist()
        truncated = bool(found.truncated[row])
        target = ids if truncated else [*ids, SPECIALS.eos]
        logits = model(torch.tensor([source]), torch.tensor([len(source)]), torch.tensor([[1, *ids]]))[0][0]
        log_prob = 0.0
        for t, token in enumerate(target):
            allowed = logits[t].clone()
            allowed[[SPECIALS.pad, SPECIALS.bos]] = -torch.inf
            assert int(allowed.argmax()) == token
            log_prob += torch.log_softmax(logits[t].detach(), dim=-1)[token].item()
        assert float(found.log_prob[row]) == pytest.approx(log_prob, abs=1e-4)
        assert truncated == (len(ids) == len(source) + 2 and int(logits[len(ids), 2:].argmax()) != 0)


def test_a_hypothesis_cut_at_the_limit_is_marked(model: Seq2Seq) -> None:
    with torch.no_grad():
        model.readout.bias[SPECIALS.eos] = -1e6
    found = Greedy(limit=LengthLimit(ratio=2.0, margin=1))(model, *pad(SOURCES), specials=SPECIALS)
    assert found.lengths.tolist() == [15, 3, 7]
    assert found.truncated.all()
    assert (found.tokens[1, 3:] == SPECIALS.pad).all()


def test_ending_at_once_is_empty(model: Seq2Seq) -> None:
    with torch.no_grad():
        model.readout.bias[SPECIALS.eos] = 1e6
        if model.decoder.copies:
            model.decoder.pointer.gate.bias += 1e6
    found = Greedy(limit=LengthLimit(ratio=2.0, margin=1))(model, *pad(SOURCES), specials=SPECIALS, with_weights=True)
    assert found.lengths.tolist() == [0, 0, 0]
    assert found.tokens.shape == (3, 0)
    assert not found.truncated.any()


def test_a_limit_leaves_room() -> None:
    with pytest.raises(ValueError, match=r"^ratio 0\.0 and margin 0 leave no room for a single token$"):
        LengthLimit(ratio=0.0, margin=0)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    extra=st.integers(0, 3),
    layers=st.integers(1, 3),
    cell=st.sampled_from([torch.nn.GRU, torch.nn.LSTM]),
)
def test_the_encoder_equals_torchs_packed_one(lengths: list[int], extra: int, layers: int, cell: type) -> None:
    """The directions without packing give what torch's bidirectional cells give over a packed sequence."""
    torch.manual_seed(len(lengths))
    rnn = functools.partial(Recurrence, cell=cell, layers=layers, dropout=0.0)
    encoder = BidirectionalEncoder(
        embedding_size=3, hidden_size=8, rnn=rnn, layers=layers, dropout=0.0, final_state="both"
    )
    packed = cell(3, 4, num_layers=layers, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for layer in range(layers):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                for side, suffix in ((encoder.forwards, ""), (encoder.backwards, "_reverse")):
                    getattr(packed, f"{name}_l{layer}{suffix}").copy_(getattr(side[layer].cells, f"{name}_l0"))
    embedded = torch.randn(len(lengths), max(lengths) + extra, 3)
    sizes = torch.tensor(lengths)
    memory = encoder(embedded, sizes)
    sequence = torch.nn.utils.rnn.pack_padded_sequence(embedded, sizes, batch_first=True, enforce_sorted=False)
    states, last = packed(sequence)
    last = last[0] if cell is torch.nn.LSTM else last  # [2L, B, H/2], layer by layer forward, backward
    states, _ = torch.nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=embedded.size(1))
    torch.testing.assert_close(memory.states, states, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(memory.final_state[0], last.transpose(0, 1).flatten(1), atol=1e-6, rtol=1e-5)


def test_parts_check_their_sizes_themselves() -> None:
    for part, sizes in (
        (LocationScore, {"query_size": 4, "memory_size": 4, "max_length": 0}),
        (LocalMonotonicWindow, {"query_size": 4, "memory_size": 4, "half_width": 0}),
        (LocalPredictiveWindow, {"query_size": 4, "memory_size": 4, "half_width": 0}),
    ):
        with pytest.raises(ValueError, match=r"_(length|width): must be a whole number of at least 1, not 0$"):
            part(**sizes)


def test_an_odd_memory_is_refused(composed: Compose) -> None:
    with pytest.raises(
        InputError, match=r"^encoder\.hidden_size: must be even, because each direction has half of it, not 7$"
    ):
        small(composed, "plain", "encoder.hidden_size=7")


@pytest.mark.parametrize("wiring", WIRING_CASES)
def test_bfloat16_runs(composed: Compose, wiring: tuple[str, ...]) -> None:
    """Mixed precision trains and searches, and says nearly the same."""
    model = small(composed, *wiring)
    batch = (*pad(SOURCES), torch.tensor([[1, 4], [1, 5], [1, 6]]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(*batch)[0]
        found = Greedy(limit=LengthLimit(ratio=1.0, margin=1))(model, *batch[:2], specials=SPECIALS)
    assert found.log_prob.isfinite().all()
    torch.testing.assert_close(logits.float(), model(*batch)[0], atol=0.3, rtol=0.1)
    logits.float().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("wiring", WIRING_CASES)
def test_huge_scores_do_not_overflow(composed: Compose, wiring: tuple[str, ...]) -> None:
    """Scores of 1e4 and more: softmax stays finite, gradients too."""
    model = small(composed, *wiring)
    for attention in attentions(model):
        with torch.no_grad():
            for parameter in attention.parameters():
                parameter.mul_(1e4)
        attention.score.register_forward_hook(lambda score, inputs, scores: scores * 1e4)  # some have no parameters
    for part in model.modules():
        if isinstance(part, torch.nn.MultiheadAttention):  # queries and keys of 1e3
            with torch.no_grad():
                part.in_proj_weight[: 2 * part.embed_dim].mul_(1e3)
    logits = model(*pad(SOURCES), torch.tensor([[1, 4], [1, 5], [1, 6]]))[0][..., :TARGET_VOCABULARY]
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("arm", ["luong_dot", "luong_scaled_dot", "transformer"])
def test_sizes_that_cannot_be_multiplied_are_refused(composed: Compose, arm: str) -> None:
    with pytest.raises(InputError, match=r"model\.hidden_size=8 and encoder\.hidden_size=12 differ"):
        small(composed, arm, "encoder.hidden_size=12")


@pytest.mark.parametrize("feeding", ["false", "true"])
def test_positions_beyond_the_longest_get_nothing(composed: Compose, float64: None, feeding: str) -> None:
    """Weights on the first ``max_length`` positions sum to 1, and a source of any length has at least one of those."""
    model = small(composed, "luong_location", "decoder.score.max_length=2", f"decoder.input_feeding={feeding}")
    memory = model.encode(*pad(SOURCES, 9))
    weights = model.decoder.unroll(torch.randn(3, 4, 5), memory).weights
    assert (weights[..., 2:] == 0).all()
    assert (weights[1, :, 1:] == 0).all()  # one token
    torch.testing.assert_close(weights[..., :2].sum(dim=-1), torch.ones(3, 4), atol=1e-12, rtol=0)


SCORES = "AdditiveScore, CoverageScore, DotScore, GeneralScore, LocationScore, NormalisedAdditiveScore, ScaledDotScore"
WINDOW = "{_target_: attnspan.models.attention.windows.LocalMonotonicWindow, _partial_: true, half_width: 2}"


@pytest.mark.parametrize(
    ("wiring", "complaint"),
    [
        (
            ("luong_2015", "encoder.hidden_size=10"),
            "decoder.bridge: the encoder's final state has 20 features (encoder.layers times encoder.hidden_size), and "
            "the decoder's state has 16 (rnn.layers=2 times model.hidden_size=8)",
        ),
        (("luong_2015", "encoder.layers=1"), "decoder.bridge: the encoder's final state has 8 features"),
        (
            ("plain", "model.tied_target_embeddings=true"),
            "model.tied_target_embeddings: needs model.embedding_size=5 to be as large as the decoder's output, 8 "
            "(model.hidden_size=8)",
        ),
        (
            ("luong_location", f"+decoder.window={WINDOW}"),
            "decoder.window: LocalMonotonicWindow needs a score that looks at the source, and LocationScore does not",
        ),
        (
            ("monotonic", "+decoder/normaliser=entmax15"),
            "decoder.normaliser: MonotonicWindow makes the weights itself, without Entmax15",
        ),
        (
            ("monotonic", "decoder/score=forward"),
            "decoder.window: ForwardScore has the logarithm of weights in its scores, by which MonotonicWindow does",
        ),
        (
            ("mocha", "decoder/score@decoder.window.score=coverage"),
            "decoder.window.score: must depend on the source and remember nothing, and CoverageScore does not",
        ),
        (
            ("luong_general", "decoder.heads=3"),
            "decoder.heads: must divide encoder.hidden_size=8 into equal parts, and 3 does not",
        ),
        (("bahdanau", "decoder.heads=0"), "decoder.heads: must be a whole number of at least 1, not 0"),
        (
            ("forward", "decoder/normaliser=entmax15"),
            "decoder.normaliser: ForwardScore has the logarithm of weights in its scores, by which only Softmax "
            "multiplies, and Entmax15 does not",
        ),
        (("plain", "encoder.final_state=forward"), "encoder.final_state: must be both or backward, not 'forward'"),
        (("luong_local_m", "decoder.window.half_width=0"), "decoder.window.half_width: must be a whole number of at"),
        (("luong_local_p", "decoder.window.half_width=1.5"), "decoder.window.half_width: must be a whole number of at"),
        (("luong_location", "decoder.score.max_length=0"), "decoder.score.max_length: must be a whole number of at"),
        (("bahdanau_2015", "decoder.deep_output.features=0"), "decoder.deep_output.features: must be a whole number"),
        (("plain", "rnn.layers=x"), "rnn.layers: must be a whole number of at least 1, not 'x'"),
        (("luong_general", "decoder.input_feeding=maybe"), "decoder.input_feeding: must be true or false, not 'maybe'"),
        (
            ("luong_general", "decoder.score._target_=attnspan.models.attention.scores.GeneralScor"),
            "decoder.score._target_: attnspan.models.attention.scores has no 'GeneralScor'; "
            "did you mean 'GeneralScore'? "
            f"known: {SCORES}",
        ),
        (
            ("luong_general", "decoder.score._target_=attnspan.models.attention.score.GeneralScore"),
            "decoder.score._target_: attnspan.models.attention has no 'score'; did you mean 'scores'? known: ",
        ),
        (
            ("plain", "rnn.cell._target_=torch.nn.GRUU"),
            "rnn.cell._target_: torch.nn has no 'GRUU'; did you mean 'GRU'?",
        ),
        (("plain", "rnn.cell._target_=nowhere.GRU"), "No module named 'nowhere'"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_what_does_not_fit_is_refused(
    composed: Compose, wiring: tuple[str, ...], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError) as refused:
        small(composed, *wiring)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr().err == ""  # one line, from whoever catches it


WIDTHS = [(f"model.hidden_size={hidden}",) for hidden in (32, 128, 512)]


@pytest.mark.parametrize(
    "sizes",
    [
        *WIDTHS,
        ("encoder.hidden_size=200",),
        ("decoder.as_large_as.score.attention_size=500",),
        ("rnn=lstm", "rnn.layers=3"),
    ],
    ids=" ".join,
)
def test_plain_wide_is_as_large_as_bahdanau(composed: Compose, sizes: tuple[str, ...]) -> None:
    def parameters(arm: str, *overrides: str) -> int:
        with torch.device("meta"):
            model = assemble_model(
                composed(f"decoder={arm}", *overrides), source_vocabulary_size=40, target_vocabulary_size=50
            )
        return sum(parameter.numel() for parameter in model.parameters())

    wide = parameters("plain_wide", *sizes)
    assert wide == pytest.approx(parameters("bahdanau", *(key.replace(".as_large_as", "") for key in sizes)), rel=0.01)


def test_vocabularies_are_the_models(composed: Compose) -> None:
    model = small(composed, "plain")
    assert model.source_embedding.num_embeddings == SOURCE_VOCABULARY
    assert model.readout.out_features == TARGET_VOCABULARY
