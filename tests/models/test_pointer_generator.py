"""What a decoder that copies promises besides its equations, which ``test_equations.py`` has."""

from __future__ import annotations

import pytest
import torch

from attnspan.config.instantiate import assemble_model
from attnspan.errors import InputError
from attnspan.models.decoders.base import Sizes
from attnspan.models.decoders.pointer_generator import PointerGenerator
from attnspan.models.decoding.greedy import Greedy
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.models.decoding.strategy import Specials
from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import Compose
from tests.models.arms import SOURCE_VOCABULARY, TARGET_VOCABULARY, WIRINGS, pad, small, with_target_ids

POINTERS = [wiring for wiring in WIRINGS if "pointer" in " ".join(wiring)]
SOURCES = [[4, 9, 10, 9], [9], [10, 4, 9]]
V, UNKNOWN = TARGET_VOCABULARY, 3


@pytest.fixture(params=POINTERS, ids=" ".join)
def model(composed: Compose, request: pytest.FixtureRequest, float64: None) -> Seq2Seq:
    return small(composed, *request.param)


def pointer() -> PointerGenerator:
    return PointerGenerator(sizes=Sizes(embedding=1, hidden=1, memory=1, final=1))


def test_by_hand(float64: None) -> None:
    """V = 2, a source of three tokens: word 1, a word beyond the vocabulary twice. P_vocab = (.25, .75), p_gen = .5."""
    logits = (torch.tensor([[[0.25, 0.75]]]).log() + 3.0).requires_grad_()
    gate = torch.zeros(1, 1, 1, requires_grad=True)
    weights = torch.tensor([[[0.5, 0.2, 0.3]]], requires_grad=True)
    log_p = pointer()(logits, gate, weights, torch.tensor([[1, 2, 2]]))
    torch.testing.assert_close(log_p.exp(), torch.tensor([[[0.125, 0.625, 0.25, 0.0, 0.0]]]))
    assert (log_p[..., 3:] == -torch.inf).all()

    p_gen, alpha = torch.sigmoid(gate[0, 0, 0]), weights[0, 0]
    p_vocab = torch.softmax(logits[0, 0], dim=0)
    P = [p_gen * p_vocab[0], p_gen * p_vocab[1] + (1 - p_gen) * alpha[0], (1 - p_gen) * (alpha[1] + alpha[2])]
    for word, expected in enumerate(P):
        gradients = torch.autograd.grad(log_p[0, 0, word], (logits, gate, weights), retain_graph=True)
        by_hand = torch.autograd.grad(
            expected.log(), (logits, gate, weights), retain_graph=True, materialize_grads=True
        )
        for found, right in zip(gradients, by_hand, strict=True):
            torch.testing.assert_close(found, right)


def test_it_is_a_distribution(model: Seq2Seq) -> None:
    """Of the vocabulary and of the words that the source has beyond it, whatever the padding."""
    log_p = model(*pad(SOURCES, 6), torch.tensor([[1, 4, 5, 6]] * 3))[0]
    assert log_p.shape == (3, 4, V + 6)
    torch.testing.assert_close(log_p.logsumexp(dim=-1), torch.zeros(3, 4), atol=1e-12, rtol=0)
    assert (log_p > -torch.inf).sum(dim=-1).tolist() == [[V + 2] * 4, [V + 1] * 4, [V + 2] * 4]


def test_a_copied_word_is_read_as_the_unknown_one(model: Seq2Seq) -> None:
    memory = model.encode(*pad(SOURCES))
    start = model.decoder.start(memory)
    copied, known = (model.step(torch.full((3,), token), start, memory)[0] for token in (V + 1, UNKNOWN))
    assert torch.equal(copied, known)
    target = torch.tensor([[1, V, 5]] * 3)
    unrolled = model.unroll(target, memory)[0]
    assert torch.equal(unrolled, model.unroll(target.where(target < V, torch.tensor(UNKNOWN)), memory)[0])


def test_it_copies_where_the_gate_says_so(model: Seq2Seq) -> None:
    """With p_gen = 0 every decoded token is one of the source; with 1 none is beyond the vocabulary."""
    decoding = Greedy(limit=LengthLimit(ratio=1.0, margin=2))
    in_target = with_target_ids(pad(SOURCES)[0])[:, 1].tolist()
    for bias, allowed in ((-50.0, in_target), (50.0, [range(V)] * 3)):
        with torch.no_grad():
            model.decoder.pointer.gate.weight.zero_()
            model.decoder.pointer.gate.bias.fill_(bias)
        found = decoding(model, *pad(SOURCES), specials=Specials(pad=0, bos=1, eos=2), with_weights=True)
        for row, tokens in enumerate(found.tokens.tolist()):
            assert set(tokens[: int(found.lengths[row])]) <= set(allowed[row])
    assert found.log_prob.isfinite().all()


def test_weights_of_zero_leave_finite_gradients() -> None:
    """As those of sparsemax: a word with no weight is as good as impossible, and no gradient is NaN."""
    logits, gate = torch.zeros(1, 1, 2, requires_grad=True), torch.zeros(1, 1, 1, requires_grad=True)
    weights = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    log_p = pointer()(logits, gate, weights, torch.tensor([[2, 3]]))
    assert log_p[0, 0, 3] < -80
    log_p[0, 0, 3].backward()
    for part in (logits, gate, weights):
        assert part.grad is not None
        assert part.grad.isfinite().all()


def test_half_precision_is_mixed_in_float32() -> None:
    """In bfloat16 the probabilities of an example would miss 1 by hundredths."""
    parts = (torch.randn(1, 2, 30), torch.randn(1, 2, 1), torch.softmax(torch.randn(1, 2, 7), dim=-1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_p = pointer()(parts[0].bfloat16(), parts[1].bfloat16(), parts[2], torch.arange(7).unsqueeze(0) + 27)
    assert log_p.dtype == torch.float32
    torch.testing.assert_close(log_p.exp().sum(dim=-1), torch.ones(1, 2))


@pytest.mark.parametrize(
    ("arm", "overrides", "part"),
    [
        ("bahdanau_pointer", ["decoder/normaliser=sigmoid"], "Sigmoid"),
        ("luong_local_p", ["+decoder/pointer=pointer_generator"], "LocalPredictiveWindow"),
        ("monotonic", ["+decoder/pointer=pointer_generator"], "MonotonicWindow"),
        ("mocha", ["+decoder/pointer=pointer_generator"], "ChunkwiseMonotonicWindow"),
    ],
)
def test_weights_that_need_not_sum_to_one_are_refused(
    composed: Compose, arm: str, overrides: list[str], part: str
) -> None:
    problem = rf"^decoder\.pointer: copies by weights that sum to 1, and those of {part} need not$"
    with pytest.raises(InputError, match=problem):
        small(composed, arm, *overrides)


def test_images_are_refused(composed: Compose) -> None:
    config = composed("decoder=luong_pointer", "data=digits", "encoder=image_rows")
    with pytest.raises(InputError, match=r"^model: the decoder copies tokens of the source, and .* are images$"):
        assemble_model(config, source_vocabulary_size=None, target_vocabulary_size=V)


def test_nothing_else_in_the_model_differs(composed: Compose) -> None:
    """Besides the gate, an arm that copies has the parameters of the arm that does not."""
    for arm, without in (("bahdanau_pointer", "bahdanau"), ("luong_pointer", "luong_general")):
        own, other = (
            {name: part.shape for name, part in small(composed, name_of_arm).named_parameters()}
            for name_of_arm in (arm, without)
        )
        gate = {name: shape for name, shape in own.items() if name not in other}
        assert set(gate) == {"decoder.pointer.gate.weight", "decoder.pointer.gate.bias"}
        assert {name: own[name] for name in other} == other
    assert SOURCE_VOCABULARY > V  # the other words of the source
