"""Normalisers, each alone: one row of scores after another in float64, from the papers' equations or a library.

How they stand in the wirings is in the suites that take all of :data:`tests.models.arms.WIRINGS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import entmax as library
import pytest
import torch
import yaml
from torch import Tensor

from attnspan.config.config_files import conf_directory
from attnspan.config.instantiate import build
from attnspan.errors import InputError
from attnspan.models.attention.entmax import entmax, entmax15, sparsemax
from attnspan.models.attention.normalisers import (
    AdaptiveTemperatureSoftmax,
    ASEntmax,
    Entmax,
    Entmax15,
    LengthScaledSoftmax,
    Normaliser,
    Sigmoid,
    Softmax,
    Sparsemax,
)
from tests.conftest import Compose
from tests.models.arms import pad, small

DIRECTORY = conf_directory() / "decoder" / "normaliser"
NORMALISERS = sorted(path.stem for path in DIRECTORY.glob("*.yaml") if path.stem != "hard")
"""That of hard attention, which draws, is in ``test_hard_attention.py``."""
Q, HEADS = 5, 3

Equation = Callable[[Tensor, Tensor, Normaliser, int], Tensor]
"""Scores of the visible positions [n], query [Q], the normaliser for its parameters, head -> weights [n]."""


def softmax(z: Tensor) -> Tensor:
    powers = torch.exp(z - z.max().detach())
    return powers / powers.sum()


def adaptive_temperature(z: Tensor) -> Tensor:
    """Velickovic et al. 2024, figure 5."""
    H = -sum(p * torch.log(p) for p in softmax(z) if p > 0)
    theta = -0.037 * H**4 + 0.481 * H**3 - 2.3 * H**2 + 4.917 * H - 1.791
    return softmax(z * theta) if H > 0.5 and theta > 1 else softmax(z)


def asentmax(z: Tensor, q: Tensor, part: Normaliser, head: int) -> Tensor:
    """Vasylenko et al. 2025: delta + beta (ln n)^gamma, delta = 1; n from 2 on, as in the authors' code."""
    beta = torch.log(1 + torch.exp(part.size.weight[head] @ q))
    gamma = 2 * torch.tanh(part.power.weight[head] @ q)
    return library.entmax15(z * (1 + beta * math.log(len(z) + 1) ** gamma), dim=-1)


def sigmoid(z: Tensor) -> Tensor:
    """Ramapuram et al. 2024: b = -ln n."""
    return 1 / (1 + torch.exp(-(z - math.log(len(z)))))


def learned(z: Tensor, part: Normaliser, head: int) -> Tensor:
    """Correia et al. 2019: alpha = 1 + sigmoid(a)."""
    return library.entmax_bisect(z, 1 + 1 / (1 + torch.exp(-part.exponent[head : head + 1])), dim=-1)


EQUATIONS: dict[type[Normaliser], Equation] = {
    Softmax: lambda z, q, part, head: softmax(z),
    Sparsemax: lambda z, q, part, head: library.sparsemax(z, dim=-1),
    Entmax15: lambda z, q, part, head: library.entmax15(z, dim=-1),
    Entmax: lambda z, q, part, head: learned(z, part, head),
    LengthScaledSoftmax: lambda z, q, part, head: softmax(z * math.log(len(z))),
    AdaptiveTemperatureSoftmax: lambda z, q, part, head: adaptive_temperature(z),
    ASEntmax: asentmax,
    Sigmoid: lambda z, q, part, head: sigmoid(z),
}


def built(name: str, **settings: object) -> Normaliser:
    """The normaliser of a yaml, its parameters drawn anew."""
    config = yaml.safe_load((DIRECTORY / f"{name}.yaml").read_text(encoding="utf-8")) | settings
    part: Normaliser = build({"normaliser": config}, "normaliser")(query_size=Q, heads=HEADS)
    torch.manual_seed(1)
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter)
    return part.eval()


def test_every_normaliser_has_its_equation() -> None:
    assert set(EQUATIONS) == {type(built(name)) for name in NORMALISERS}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", NORMALISERS)
def test_weights_and_gradients_equal_the_equations(name: str) -> None:
    """Each row alone, of the visible positions only; what stands at the others, even NaN, changes nothing."""
    part = built(name)
    scores, query = 2 * torch.randn(2, HEADS, 4, 6), torch.randn(2, 4, Q, requires_grad=True)
    visible = torch.rand(2, 1, 4, 6) < 0.7
    visible[..., 1] = True
    visible[0, 0, 0], visible[0, 0, 1] = torch.arange(6) == 1, True  # one position, and all of them
    scores[1, 1, 2] = 0.5  # equal scores
    poisoned = scores.masked_fill(~visible, math.nan).requires_grad_()
    mix = torch.randn_like(scores)
    weights = part(poisoned, visible, query)
    assert weights[~visible.expand_as(weights)].eq(0).all()

    alone = scores.clone().requires_grad_()
    expected = torch.zeros_like(scores)
    for b, head, t in torch.cartesian_prod(*map(torch.arange, (2, HEADS, 4))).tolist():
        seen = visible[b, 0, t]
        expected[b, head, t, seen] = EQUATIONS[type(part)](alone[b, head, t, seen], query[b, t], part, head)
    torch.testing.assert_close(weights, expected, atol=1e-10, rtol=0)

    inputs = [query, *part.parameters()]
    found, right = (
        torch.autograd.grad((mix * outcome).sum(), [z, *inputs], allow_unused=True, materialize_grads=True)
        for outcome, z in ((weights, poisoned), (expected, alone))
    )
    for a, b in zip(found, right, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("weights", "scores", "expected"),
    [
        (sparsemax, [-2, 0, 0.5], [0, 0.25, 0.75]),
        (entmax15, [-2, 0, 0.5], [0, 0.3260, 0.6740]),
        (lambda z: entmax(z, torch.tensor([1.25])), [-2, 0, 0.5], [0.0053, 0.3521, 0.6426]),
        (lambda z: entmax(z, torch.tensor([1.33])), [-1, 0, 0.5], [0.0460, 0.3276, 0.6264]),
        (sparsemax, [-math.inf, 3, -math.inf], [0, 1, 0]),
        (entmax15, [1e30, -1e30, 1e30], [0.5, 0, 0.5]),
    ],
)
def test_by_hand(weights: Callable[[Tensor], Tensor], scores: list[float], expected: list[float]) -> None:
    torch.testing.assert_close(weights(torch.tensor(scores).float()), torch.tensor(expected).float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NORMALISERS)
def test_half_precision_is_computed_in_float32(name: str) -> None:
    """Under autocast the scores are bfloat16: weights, sums and gradients are those of the same scores in float32."""
    part, query, seen = built(name), torch.randn(2, 3, Q), torch.ones(1, 1, 1, 50, dtype=torch.bool)
    scores = torch.randn(2, HEADS, 3, 50).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = part(scores, seen, query).float()
    tolerance = 1e-2 if name == "asentmax" else 4e-3 if name == "softmax" else 1e-6  # what torch, or its linear, rounds
    torch.testing.assert_close(weights, part(scores.float(), seen, query), atol=tolerance, rtol=0)


def test_nan_gets_out() -> None:
    """A model that has left the numbers must not look well, nor stop the process on a GPU."""
    for name in NORMALISERS:
        weights = built(name)(
            torch.full((1, HEADS, 1, 4), math.nan), torch.ones(1, 1, 1, 4).bool(), torch.zeros(1, 1, Q)
        )
        assert weights.isnan().all(), name


def test_a_gap_keeps_its_worth_in_long_sources() -> None:
    """One score 4 above n - 1 others: what softmax dilutes, ln n and sparsity keep."""

    def of_the_best(name: str, n: int, **settings: object) -> float:
        scores = torch.zeros(1, HEADS, 1, n)
        scores[..., 0] = 4.0
        return float(built(name, **settings)(scores, torch.ones(1, 1, 1, n).bool(), torch.zeros(1, 1, Q))[0, 0, 0, 0])

    assert [round(of_the_best("softmax", n), 3) for n in (10, 100, 1000)] == [0.858, 0.355, 0.052]
    assert [of_the_best("entmax15", n) for n in (10, 1000)] == [1.0, 1.0]
    assert [round(of_the_best("length_scaled", n, reference_length=10), 2) for n in (10, 100)] == [0.86, 0.97]


def test_the_temperature_adapts_in_evaluation_only() -> None:
    part, scores = built("adaptive_temperature"), torch.randn(2, HEADS, 3, 9)
    others = (torch.ones(1, 1, 1, 9).bool(), torch.zeros(2, 3, Q))
    assert float(part(scores, *others).max()) > float(scores.softmax(-1).max()) + 0.1
    torch.testing.assert_close(part.train()(scores, *others), scores.softmax(-1))


class AlmostSoftmax(Softmax):
    """One of a user's."""


def test_a_kernel_is_for_the_softmax_only(composed: Compose) -> None:
    """By the class, not by the name of the file: the kernels know nothing else."""
    own = "decoder.normaliser._target_=tests.models.test_normalisers.AlmostSoftmax"
    for arm in ("bahdanau", "luong_general_feeding"):
        assert small(composed, arm).decoder.fused
        assert not small(composed, arm, own).decoder.fused
        assert not small(composed, arm, "decoder/normaliser=entmax15").decoder.fused


def test_every_attention_of_the_transformer_has_its_own(composed: Compose) -> None:
    """Two layers: self-attention of the encoder has one kind, self- and cross-attention of the decoder another."""
    model = small(composed, "transformer", "decoder/normaliser=entmax", "encoder/normaliser=sparsemax")
    called = []
    for part in model.modules():
        if isinstance(part, Normaliser):
            part.register_forward_hook(lambda part, given, weights: called.append((part, weights.shape)))
    model(*pad([[4, 5, 6], [7]]), torch.tensor([[1, 4], [1, 5]]))
    kinds, shapes = zip(*((type(part), tuple(shape)) for part, shape in called), strict=True)
    assert kinds == (Sparsemax,) * 2 + (Entmax,) * 4
    assert shapes == ((2, 4, 3, 3),) * 2 + ((2, 4, 2, 2), (2, 4, 2, 3)) * 2
    assert len({part for part, _ in called}) == 6


@pytest.mark.parametrize("value", ["1", "0.5", "true", "many"])
def test_a_reference_length_is_above_1(composed: Compose, value: str) -> None:
    words = r"^decoder\.normaliser\.reference_length: must be a number above 1, or null, not "
    with pytest.raises(InputError, match=words):
        small(composed, "luong_dot", "decoder/normaliser=length_scaled", f"decoder.normaliser.reference_length={value}")
