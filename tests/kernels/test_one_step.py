"""A step without gradients, as decoding takes it: by kernels the same as by the definition."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attnspan.kernels import additive
from attnspan.kernels.additive import key_factors
from attnspan.kernels.one_step import attend_additively, attend_by_products
from attnspan.models.attention import one_pass
from attnspan.models.decoders.with_attention import AttentionDecoder
from attnspan.models.decoding.beam import Beam
from attnspan.models.decoding.greedy import Greedy
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.models.decoding.length_penalty import LengthNormalisation
from attnspan.models.recurrence import fused
from attnspan.training.lightning_module import SPECIALS
from tests.conftest import Compose
from tests.models.arms import small

COVERED = [
    ("bahdanau",),
    ("luong_concat",),
    ("luong_dot",),
    ("luong_scaled_dot",),
    ("luong_general",),
    ("luong_general_feeding", "rnn=lstm"),
]


def memory_of(B: int, S: int, M: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """States and mask; there is a NaN in the padding, where a kernel has nothing to read."""
    torch.manual_seed(M)
    mask = torch.arange(S) < torch.tensor([S, 1, S - 1][:B]).unsqueeze(1)
    return torch.randn(B, S, M, dtype=dtype).masked_fill(~mask.unsqueeze(-1), math.nan), mask


def averaged(scores: Tensor, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Contexts and weights of scores [B, K, S]."""
    weights = torch.softmax(scores.masked_fill(~mask.unsqueeze(1), -torch.inf), dim=-1)
    return weights @ states.nan_to_num(0.0), weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_are_their_definition(dtype: torch.dtype) -> None:
    """Whatever the numbers of features and positions: sums go by quarters and halves, and some leave a rest."""
    for S, M in [(5, M) for M in [*range(1, 21), 33, 75]] + [(S, 9) for S in range(2, 10)]:
        states, mask = memory_of(3, S, M, dtype)
        queries = torch.randn(3, 1, M, dtype=dtype)
        exact = averaged((queries @ states.nan_to_num(0.0).transpose(1, 2)).double(), states.double(), mask)
        for found, right in zip(attend_by_products(states, mask, queries), exact, strict=True):
            torch.testing.assert_close(found.double(), right, atol=100 * torch.finfo(dtype).eps, rtol=0)


def test_padding_changes_no_digit_of_a_product() -> None:
    """A source has the same context and weights alone and beside longer ones."""
    states, _ = memory_of(1, 7, 33, torch.float32)
    query = torch.randn(1, 1, 33)
    alone = attend_by_products(states, torch.ones(1, 7, dtype=torch.bool), query)
    padded = torch.cat([states, torch.full((1, 6, 33), math.nan)], dim=1)
    contexts, weights = attend_by_products(padded, torch.arange(13).unsqueeze(0) < 7, query)
    assert torch.equal(contexts, alone[0])
    assert torch.equal(weights[..., :7], alone[1])
    assert not weights[..., 7:].any()


@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_additive_attention_is_its_definition(dtype: torch.dtype, K: int) -> None:
    """With more positions than a register has numbers, and several queries to each source."""
    states, mask = memory_of(3, 19, 6, dtype)
    keys, energy = torch.randn(3, 19, 7, dtype=dtype), torch.randn(7, dtype=dtype)
    queries = torch.randn(3, K, 7, dtype=dtype)
    scores = torch.tanh(queries.unsqueeze(2) + keys.unsqueeze(1)).double() @ energy.double()
    exact = averaged(scores, states.double(), mask)
    for found, right in zip(attend_additively(key_factors(keys), states, mask, energy, queries), exact, strict=True):
        torch.testing.assert_close(found.double(), right, atol=100 * torch.finfo(dtype).eps, rtol=0)


@pytest.mark.parametrize("wiring", COVERED, ids=" ".join)
def test_a_step_without_gradients_is_the_step(
    composed: Compose, float64: None, monkeypatch: pytest.MonkeyPatch, wiring: tuple[str, ...]
) -> None:
    """Two steps, the second from the state of the first; and the kernel computes them."""
    decoder, model = (found := small(composed, *wiring)).decoder, found
    assert isinstance(decoder, AttentionDecoder)
    source, lengths = torch.randint(4, 11, (3, 6)), torch.tensor([6, 1, 4])
    calls, outcomes = [], []
    for name in ("attend_additively", "attend_by_products"):
        kernel = getattr(one_pass, name)
        monkeypatch.setattr(one_pass, name, lambda *given, kernel=kernel: calls.append(1) or kernel(*given))
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            memory = model.encode(source, lengths)
            _, step = model.step(torch.tensor([1, 1, 1]), decoder.start(memory), memory)
            logits, step = model.step(torch.tensor([4, 5, 6]), step.state, memory)
            outcomes.append((logits, step.weights, *step.state))
        assert len(calls) == (0 if gradients else 2)
    for right, found_ in zip(*outcomes, strict=True):
        torch.testing.assert_close(found_, right.detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("wiring", [*COVERED, ("luong_multihead",), ("coverage",)], ids=" ".join)
def test_decoding_by_kernels_finds_the_same(
    composed: Compose, float64: None, monkeypatch: pytest.MonkeyPatch, wiring: tuple[str, ...]
) -> None:
    """Greedily and in a beam as with torch's operations alone; examples end at different steps."""
    model = small(composed, *wiring)
    with torch.no_grad():
        model.readout.bias[SPECIALS.eos] -= 4  # long hypotheses
    source, lengths = torch.randint(4, 11, (5, 9)), torch.tensor([9, 1, 3, 9, 6])
    limit = LengthLimit(ratio=2.0, margin=2)
    beam = Beam(limit=limit, beam_size=3, length_penalty=LengthNormalisation(exponent=1.0))
    for strategy in (Greedy(limit=limit), beam):
        found = []
        for is_compiled in (True, False):
            with monkeypatch.context() as patch:
                if not is_compiled:
                    for module in (additive, fused, one_pass):
                        patch.setattr(module, "uses_numba", lambda tensor: False)
                found.append(strategy(model, source, lengths, specials=SPECIALS, with_weights=True))
        compiled, plain = found
        assert torch.equal(compiled.tokens, plain.tokens)
        torch.testing.assert_close(compiled.log_prob, plain.log_prob, atol=1e-9, rtol=0)
        torch.testing.assert_close(compiled.weights, plain.weights, atol=1e-9, rtol=0)


def test_a_memory_without_factors_is_read_by_its_keys(composed: Compose, float64: None) -> None:
    """As on another device, or where the keys are too large."""
    model = small(composed, "bahdanau")
    source, lengths = torch.randint(4, 11, (2, 6)), torch.tensor([6, 3])
    with torch.no_grad():
        memory = model.encode(source, lengths)
        assert memory.key_factors is not None
        start, token = model.decoder.start(memory), torch.tensor([1, 1])
        with_them, _ = model.step(token, start, memory)
        without, _ = model.step(token, start, replace(memory, key_factors=None))
        torch.testing.assert_close(with_them, without, atol=1e-12, rtol=0)
        model.decoder.attention.score.key.weight.mul_(1e4)
        assert model.encode(source, lengths).key_factors is None


def test_scores_of_ones_own_have_no_kernel(composed: Compose) -> None:
    """A class that is derived from one that has may compute something else."""
    score = small(composed, "luong_general").decoder.attention.score
    assert one_pass.one_pass(score) is not None
    score.__class__ = type("Own", (type(score),), {})
    assert one_pass.one_pass(score) is None
