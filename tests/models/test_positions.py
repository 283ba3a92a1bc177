"""Positions of the transformer: each kind against a slow loop in float64 and against numbers from elsewhere."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch import Tensor, nn

from attnspan.errors import InputError
from attnspan.models.positions import (
    AlibiPositions,
    Positions,
    RandomisedPositions,
    RotaryPositions,
    SinusoidalPositions,
    StackSizes,
    T5Positions,
    rotate,
)
from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import Compose
from tests.models.arms import pad, small
from tests.models.test_transformer import Head, Paper, assert_equals_the_loop

SOURCES = [[4, 5, 6, 7, 4, 9, 10, 4], [9]]
TARGETS = [[1, 4, 5, 6, 8, 7, 4, 4], [1, 7, 8, 4, 4, 4, 4, 4]]


class NoPE(Paper):
    """Kazemnejad et al. 2023: nothing."""

    def added(self, t: int, d: int, positions: nn.Module) -> Tensor:
        return torch.zeros(d)


class Learned(Paper):
    """Gehring et al. 2017: a vector for each place."""

    def added(self, t: int, d: int, positions: nn.Module) -> Tensor:
        return positions.table.weight[min(t, 3)]


class T5(NoPE):
    """Raffel et al. 2020; ``bucket`` is mesh_tensorflow's ``_relative_position_bucket``, number by number."""

    def bucket(self, n: int, *, bidirectional: bool, buckets: int = 8, max_distance: int = 6) -> int:
        first = 0
        if bidirectional:
            buckets //= 2
            first, n = (buckets, -n) if n < 0 else (0, n)
        n = max(n, 0)
        exact = buckets // 2
        if n < exact:
            return first + n
        large = exact + int(math.log(n / exact) / math.log(max_distance / exact) * (buckets - exact))
        return first + min(large, buckets - 1)

    def score(self, q: Tensor, k: Tensor, j: int, at: Head | None) -> Tensor:
        score = Paper.score(self, q, k, j, at)
        if at is None:
            return score
        positions, t, head = at
        return score + positions.table.weight[self.bucket(t - j, bidirectional=not positions.is_causal), head]


class Alibi(NoPE):
    """Press et al. 2022, for four heads: slopes 1/4, 1/16, 1/64, 1/256."""

    def score(self, q: Tensor, k: Tensor, j: int, at: Head | None) -> Tensor:
        score = Paper.score(self, q, k, j, at)
        return score if at is None else score - abs(at[1] - j) / 4 ** (at[2] + 1)


class Rotary(NoPE):
    """Su et al. 2021, eq. 12: pairs of features as complex numbers, turned by their place."""

    def turned(self, x: Tensor, t: float) -> list[Tensor]:
        d = len(x)
        return [
            torch.complex(x[2 * i], x[2 * i + 1]) * cmath.exp(1j * t * 10000 ** (-2 * i / d)) for i in range(d // 2)
        ]

    def score(self, q: Tensor, k: Tensor, j: int, at: Head | None) -> Tensor:
        if at is None:
            return Paper.score(self, q, k, j, at)
        pairs = zip(self.turned(q, at[1]), self.turned(k, j), strict=True)
        return sum((a * b.conj()).real for a, b in pairs) / math.sqrt(len(q))


class RandomisedSines(Paper):
    """Ruoss et al. 2023: the t-th of the places in order."""

    def added(self, t: int, d: int, positions: nn.Module) -> Tensor:
        return self.position(int(positions.test_places[t]), d)


class RandomisedAlibi(NoPE):
    """The same with distances."""

    def score(self, q: Tensor, k: Tensor, j: int, at: Head | None) -> Tensor:
        score = Paper.score(self, q, k, j, at)
        if at is None:
            return score
        places = at[0].test_places
        return score - abs(int(places[at[1]]) - int(places[j])) / 4 ** (at[2] + 1)


KINDS = {
    "none": (NoPE, ""),
    "learned": (Learned, "max_length=4"),
    "t5": (T5, "buckets=8 max_distance=6"),
    "alibi": (Alibi, ""),
    "rotary": (Rotary, ""),
    "randomised": (RandomisedSines, "max_position=50 max_length=9"),
    "randomised alibi": (
        RandomisedAlibi,
        "max_position=20 max_length=9 kind._target_=attnspan.models.positions.AlibiPositions",
    ),
}


def overrides(kind: str) -> list[str]:
    """Both stacks with a kind of positions and its settings."""
    sides, settings = ("encoder", "decoder"), KINDS[kind][1].split()
    return [f"{side}/positions={kind.split()[0]}" for side in sides] + [
        f"{side}.positions.{setting}" for side in sides for setting in settings
    ]


def placed(composed: Compose, kind: str) -> Seq2Seq:
    """A small model, its biases drawn: they begin at 0."""
    model = small(composed, "transformer", "model.hidden_size=16", "encoder.layers=1", *overrides(kind))
    for part in (model.encoder, model.decoder):
        if isinstance(part.positions, T5Positions):
            nn.init.normal_(part.positions.table.weight)
    return model


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", KINDS)
def test_logits_weights_and_gradients_equal_the_loop(composed: Compose, kind: str) -> None:
    model = placed(composed, kind)
    assert_equals_the_loop(model, KINDS[kind][0](model), SOURCES, TARGETS)


SIZES = StackSizes(embedding=8, hidden=8, heads=4, is_causal=False)


BOTH_SIDES = [15, 15, 14, 12, 10, 9, 8, 3, 0, 17, 23, 24, 24, 25, 28, 31, 31, 31]
PAST = [31, 31, 26, 23, 16, 15, 8, 3, 0]


def test_buckets_are_those_of_t5() -> None:
    """As ``_relative_position_bucket`` of Hugging Face's T5 gives them for 32 buckets up to 128."""
    distance = torch.tensor([[-200, -128, -64, -40, -16, -15, -8, -3, 0, 1, 7, 8, 11, 12, 33, 127, 128, 500]])
    both = T5Positions(sizes=SIZES, buckets=32, max_distance=128)
    assert both.bucket(distance)[0].tolist() == BOTH_SIDES
    causal = StackSizes(embedding=8, hidden=8, heads=4, is_causal=True)
    past = T5Positions(sizes=causal, buckets=32, max_distance=128)
    assert past.bucket(distance[:, :9])[0].tolist() == PAST


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (8, [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]),  # the paper's example
        (3, [2**-4, 2**-8, 2**-2]),
        (6, [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]),  # as ``get_slopes`` of the authors' code gives them
    ],
)
def test_slopes_are_those_of_alibi(heads: int, slopes: list[float]) -> None:
    positions = AlibiPositions(sizes=StackSizes(embedding=8, hidden=24, heads=heads, is_causal=True))
    one, two = torch.tensor([7]), torch.tensor([4])
    assert positions.bias(one, two)[:, 0, 0].tolist() == [-3 * slope for slope in slopes]


def test_a_product_after_rotation_knows_the_distance_only() -> None:
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)
    rotary = RotaryPositions(sizes=StackSizes(embedding=8, hidden=8, heads=1, is_causal=True))

    def product(t: int, j: int) -> float:
        angles = rotary.angles(torch.tensor([t, j]), torch.float64)
        return float((rotate(q, angles[:1]) * rotate(k, angles[1:])).sum())

    assert product(7, 4) == pytest.approx(product(103, 100), abs=1e-12)
    assert product(7, 4) != pytest.approx(product(4, 7), abs=1e-3)
    assert product(5, 5) == pytest.approx(float((q * k).sum()), abs=1e-12)


@pytest.mark.usefixtures("float64")
def test_places_are_drawn_anew_in_training(composed: Compose) -> None:
    """Ascending, all different, within the range, of their own for source and target; in evaluation always the same."""
    model = placed(composed, "randomised").train()
    drawn: list[Tensor] = []

    for part in (model.encoder, model.decoder):
        kind = part.positions.kind
        kind.add = lambda x, places, kind=kind: drawn.append(places) or SinusoidalPositions.add(kind, x, places)
    batch = (*pad(SOURCES), torch.tensor(TARGETS)[:, :5])
    for _ in range(40):
        model(*batch)
    assert [len(places) for places in drawn[:2]] == [8, 5]
    assert all((places.diff() > 0).all() for places in drawn)
    assert len({tuple(places.tolist()) for places in drawn}) == 80
    every = torch.cat(drawn)
    assert every.min() == 0
    assert every.max() == 49
    drawn.clear()
    model.eval()
    state = torch.get_rng_state()
    assert torch.equal(model(*batch)[0], model(*batch)[0])
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(drawn[0], drawn[2])


def test_tests_reach_beyond_the_places_drawn() -> None:
    positions = RandomisedPositions(sizes=SIZES, kind=SinusoidalPositions, max_position=9, max_length=3).eval()
    *drawn, last = positions.test_places.tolist()
    found = positions.places(5, whole=False, device=torch.device("cpu"))
    assert found.tolist() == [*drawn, last, last + 1, last + 2]


def test_learned_positions_are_drawn_like_embeddings(composed: Compose) -> None:
    model = small(composed, "transformer", "decoder/positions=learned")
    assert model.decoder.positions.table.weight.std().item() == pytest.approx(2.0, abs=0.1)  # ``small`` doubles them


def test_the_default_says_what_its_class_says(composed: Compose) -> None:
    """A run that was made before there were other kinds, and one of today, are one and the same."""
    one, other = small(composed, "transformer"), small(composed, "transformer", "~decoder.positions")
    assert type(one.decoder.positions) is type(other.decoder.positions) is SinusoidalPositions
    assert isinstance(one.encoder.positions, Positions)
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("decoder/positions=rotary", "model.hidden_size=12"),
            r"^decoder\.positions: features are rotated in pairs, and each of heads=4 has 3$",
        ),
        (("encoder/positions=t5", "encoder.positions.buckets=6"), r"^encoder\.positions\.buckets: must be a multiple"),
        (
            ("decoder/positions=t5", "decoder.positions.max_distance=16"),
            r"^decoder\.positions\.max_distance: must be more than 16",
        ),
        (
            ("encoder/positions=learned", "encoder.positions.max_length=0"),
            r"^encoder\.positions\.max_length: must be a",
        ),
        (
            ("decoder/positions=randomised", "decoder.positions.max_length=4000"),
            r"^decoder\.positions\.max_length: must be at most max_position=2048, not 4000",
        ),
    ],
)
def test_bad_settings_are_refused(composed: Compose, settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(composed, "transformer", *settings)
