"""Scores with memory against slow loops in float64, written from the papers' equations as they stand there.

The papers multiply weights and normalise them; the code adds logarithms. What the rest of an arm does is in
:mod:`tests.models.test_equations`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from attnspan.errors import InputError
from attnspan.models.attention.location.convolution import beta_binomial
from attnspan.models.attention.location.mixture import ExponentialMixtureScore, SoftplusMixtureScore
from attnspan.models.contract import check_contract
from tests.conftest import Compose
from tests.models.arms import MECHANISMS, pad, small, small_config
from tests.models.test_equations import SOURCES, TARGETS, Now, Paper, align, sigmoid, total

pytestmark = pytest.mark.usefixtures("float64")


class Mechanism(Paper):
    """One method a mechanism: from the query to the weights. What it remembers is in ``kept``, by name."""

    def __init__(self, model: Any, config: dict[str, Any], wiring: str, name: str) -> None:
        super().__init__(model, config, (wiring, "", ""))
        self.score: Any = model.decoder.attention.score
        self.weigh: Callable[[Tensor, Now], list[Tensor]] = getattr(self, name)

    def __call__(self, source: list[int], target_input: list[int]) -> tuple[Tensor, Tensor]:
        self.kept: dict[str, Any] = {}
        return super().__call__(source, target_input)

    def attend(self, query: Tensor, now: Now) -> Tensor:
        self.n = len(now.states)
        now.weights = self.weigh(query, now)
        context = total([weight * state for weight, state in zip(now.weights, now.states, strict=True)])
        self.after(query, context)
        return context

    def after(self, query: Tensor, context: Tensor) -> None:
        """What happens when the context is known."""

    def previous(self, first: list[float], now: Now) -> list[Tensor]:
        """alpha_{t-1}."""
        return [torch.tensor(weight) for weight in first] if now.t == 1 else now.weights

    def one_hot(self) -> list[float]:
        return [1.0] + [0.0] * (self.n - 1)

    def convolved(self, filters: Tensor, weights: list[Tensor], j: int) -> Tensor:
        """sum_k F_k alpha_{j+k}, k from -(width - 1) / 2 on; weights beyond the ends are 0."""
        reach = filters.size(1) // 2
        near = [weights[i] if 0 <= i < self.n else torch.zeros(()) for i in range(j - reach, j + reach + 1)]
        return filters @ torch.stack(near)

    def softmax(self, e: list[Tensor]) -> list[Tensor]:
        return align(e, list(range(1, len(e) + 1)), len(e))

    # Convolutions

    def location_convolution(self, s: Tensor, now: Now) -> list[Tensor]:
        """Chorowski et al. 2015, eq. 8 and 9; alpha_0 = 1 / n."""
        score, alpha = self.score, self.previous([1 / self.n] * self.n, now)
        w, u, v_a = score.query.weight, score.key.weight, score.energy.weight[0]
        f = [self.convolved(score.filters.weight, alpha, j) for j in range(self.n)]
        v, b = score.location.weight, score.location.bias
        return self.softmax([v_a @ torch.tanh(w @ s + u @ h + v @ f[j] + b) for j, h in enumerate(now.states)])

    def dynamic_convolution(self, s: Tensor, now: Now) -> list[Tensor]:
        """Battenberg et al. 2020, eq. 8; alpha_0 at position 1."""
        score, alpha = self.score, self.previous(self.one_hot(), now)
        static = score.static.weight
        made = score.dynamic.weight @ torch.tanh(score.query.weight @ s + score.query.bias)
        dynamic = made.reshape(static.shape)
        t, b = score.dynamic_features.weight, score.dynamic_features.bias
        u, v, prior = score.static_features.weight, score.energy.weight[0], PRIOR
        e = []
        for j in range(self.n):
            f, g = self.convolved(static, alpha, j), self.convolved(dynamic, alpha, j)
            came = total([prior[k] * alpha[j - k] for k in range(min(j, 10) + 1)])
            e.append(v @ torch.tanh(u @ f + t @ g + b) + torch.log(torch.clamp(came, min=1e-6)))
        return self.softmax(e)

    # Forward attention

    def forward(self, s: Tensor, now: Now) -> list[Tensor]:
        """Zhang et al. 2018, algorithm 1: alpha'(n) = (alpha(n) + alpha(n - 1)) y(n), normalised."""
        alpha, y = self.previous(self.one_hot(), now), self.content(s, now)
        moved = [alpha[j] + (alpha[j - 1] if j else 0.0) for j in range(self.n)]
        return normalised([m * weight for m, weight in zip(moved, y, strict=True)])

    def forward_agent(self, s: Tensor, now: Now) -> list[Tensor]:
        """Algorithm 2: alpha'(n) = ((1 - u) alpha(n) + u alpha(n - 1)) y(n), u_0 = 0.5."""
        alpha, y, u = self.previous(self.one_hot(), now), self.content(s, now), self.kept.get("u", 0.5)
        self.after = self.agent
        moved = [(1 - u) * alpha[j] + u * (alpha[j - 1] if j else 0.0) for j in range(self.n)]
        return normalised([m * weight for m, weight in zip(moved, y, strict=True)])

    def agent(self, query: Tensor, context: Tensor) -> None:
        """u_t = DNN(c_t, s_t)."""
        w, b = self.score.agent.weight[0], self.score.agent.bias[0]
        self.kept["u"] = sigmoid(w @ torch.cat([context, query]) + b)

    def content(self, s: Tensor, now: Now) -> list[Tensor]:
        """y_t: the softmax of the additive score inside."""
        score = self.score.content
        w_a, u_a, v_a = score.query.weight, score.key.weight, score.energy.weight[0]
        return self.softmax([v_a @ torch.tanh(w_a @ s + u_a @ h) for h in now.states])

    # Mixtures

    def gmm_v1(self, s: Tensor, now: Now) -> list[Tensor]:
        """Battenberg et al. 2020, table 1: Delta = exp, sigma = sqrt(exp), Z = sqrt(2 pi sigma^2)."""
        return self.mixture(s, torch.exp, lambda raw: torch.sqrt(torch.exp(raw)))

    def gmm_v2b(self, s: Tensor, now: Now) -> list[Tensor]:
        """The same with softplus for both."""
        return self.mixture(s, softplus, softplus)

    def mixture(self, s: Tensor, step: Callable[..., Tensor], width: Callable[..., Tensor]) -> list[Tensor]:
        """Eq. 5 of Battenberg et al. 2020, normalised over the positions 1 ... n."""
        score = self.score
        raw = score.shape.weight @ torch.tanh(score.hidden.weight @ s + score.hidden.bias) + score.shape.bias
        w_raw, delta_raw, sigma_raw = raw.chunk(3)
        w = torch.exp(w_raw) / torch.exp(w_raw).sum()
        mu, sigma = self.kept.get("mu", torch.zeros(score.components)) + step(delta_raw), width(sigma_raw)
        self.kept["mu"] = mu
        shares = []
        for j in range(1, self.n + 1):  # bump k at j is exp(shares[j][k]), which may be too small a number
            shares.append(torch.log(w / torch.sqrt(2 * math.pi * sigma**2)) - (j - mu) ** 2 / (2 * sigma**2))
        highest = torch.stack(shares).max().detach()
        return normalised([torch.exp(share - highest).sum() for share in shares])

    # Chowdhury and Caragea 2023

    def loc_attn(self, s: Tensor, now: Now) -> list[Tensor]:
        return self.remembered(self.bump(self.score, s, self.located))

    def located(self, rho: Tensor, p: Tensor, unit: float) -> Tensor:
        whole = torch.floor(rho[0])
        staircase = whole + sigmoid(20 * (rho[0] - whole - 0.5))
        mu = staircase * unit + sigmoid(rho[1]) * p + sigmoid(rho[2])
        return torch.where(mu > 1, 1 + 0.01 * (mu - 1), torch.where(mu < 0, 0.01 * mu, mu))

    def one_step(self, s: Tensor, now: Now) -> list[Tensor]:
        beta = self.bump(self.score.location, s, lambda rho, p, unit: p + sigmoid(5 * rho[0]) * unit)
        return self.from_either_end(self.remembered(beta), s, now)

    def mono(self, s: Tensor, now: Now) -> list[Tensor]:
        g = sigmoid(self.score.location.gate)

        def centre(rho: Tensor, p: Tensor, unit: float) -> Tensor:
            return p + (g * torch.relu(rho[0]) + (1 - g) * sigmoid(5 * rho[0])) * unit

        return self.from_either_end(self.remembered(self.bump(self.score.location, s, centre)), s, now)

    def bump(self, score: Any, s: Tensor, centre: Callable[..., Tensor]) -> list[Tensor]:
        """exp(-(j' - mu)^2 / 2 sigma^2), normalised, j' = (j - 1) / (n - 1)."""
        q = score.query.weight @ s
        sigma = (torch.relu(score.width.weight[0] @ q) + 0.27) / self.n
        unit = 1 / max(self.n - 1, 1)
        mu = centre(score.move.weight @ q, self.kept.get("p", torch.zeros(())), unit)
        return self.softmax([-((j * unit - mu) ** 2) / (2 * sigma**2) for j in range(self.n)])

    def remembered(self, weights: list[Tensor]) -> list[Tensor]:
        """p_t."""
        self.kept["p"] = total([weight * (j / max(self.n - 1, 1)) for j, weight in enumerate(weights)])
        return weights

    def from_either_end(self, beta: list[Tensor], s: Tensor, now: Now) -> list[Tensor]:
        """sum_j beta_j (g h_j + (1 - g) h_{n+1-j}), g of the first query, as weights on h."""
        g = self.share_forwards(s)
        return [g * beta[j] + (1 - g) * beta[self.n - 1 - j] for j in range(self.n)]

    def share_forwards(self, s: Tensor) -> Tensor:
        if "g" not in self.kept:
            self.kept["g"] = sigmoid(5 * (self.score.direction.gate.weight[0] @ s))
        return self.kept["g"]

    def mix(self, s: Tensor, now: Now) -> list[Tensor]:
        m = sigmoid(self.score.mix.weight[0] @ s)
        bump, content = self.bump(self.score.location, s, self.located), self.content(s, now)
        mixture = [m * a + (1 - m) * b for a, b in zip(bump, content, strict=True)]
        self.remembered(bump if self.score.own_weights else mixture)
        return mixture

    def bi_relative(self, s: Tensor, now: Now) -> list[Tensor]:
        """((q + u) k_j + (q + v) W_R R_{j-t}) / sqrt(d), k_j of g h_j + (1 - g) h_{n+1-j}."""
        score, g = self.score, self.share_forwards(s)
        q, d, e = score.query.weight @ s, score.query.out_features, []
        for j, (h, opposite) in enumerate(zip(now.states, now.states[::-1], strict=True), start=1):
            k = score.key.weight @ (g * h + (1 - g) * opposite)
            angles = [(j - now.t) / 10000 ** (2 * i / d) for i in range(d // 2)]
            r = torch.tensor([math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles])
            at = (q + score.position_bias) @ (score.relative.weight @ r)
            e.append(((q + score.content_bias) @ k + at) / math.sqrt(d))
        return self.from_either_end(self.softmax(e), s, now)


PRIOR = tuple(
    math.comb(10, k)
    * math.prod((0.1 + i) for i in range(k))
    * math.prod((0.9 + i) for i in range(10 - k))
    / math.prod((1.0 + i) for i in range(10))
    for k in range(11)
)
"""The beta-binomial distribution of n = 10, alpha = 0.1, beta = 0.9, by rising factorials."""


def softplus(x: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(x))


def normalised(weights: list[Tensor]) -> list[Tensor]:
    return [weight / total(weights) for weight in weights]


VARIANTS = [
    *((arm,) for arm in MECHANISMS if arm not in ("bi_relative", "dynamic_convolution")),
    ("dynamic_convolution", "decoder.score.width=5", "decoder.score.filters=2", "rnn=lstm"),
    ("mix", "decoder.score.own_weights=true"),
    ("bi_relative", "decoder.score.attention_size=6", "rnn.layers=2"),
]


def loop_of(composed: Compose, wiring: tuple[str, ...], kind: type[Mechanism] = Mechanism) -> Mechanism:
    model = small(composed, *wiring)
    return kind(model, small_config(composed, *wiring), "bahdanau", wiring[0])


@pytest.mark.parametrize("wiring", VARIANTS, ids=" ".join)
def test_logits_weights_and_gradients_equal_the_loop(composed: Compose, wiring: tuple[str, ...]) -> None:
    loop = loop_of(composed, wiring)
    logits, weights = loop.model(*pad(SOURCES), torch.tensor(TARGETS))
    assert weights is not None
    expected = [loop(*pair) for pair in zip(SOURCES, TARGETS, strict=True)]
    for row, (right, alignment) in enumerate(expected):
        torch.testing.assert_close(weights[row, :, : len(SOURCES[row])], alignment, atol=1e-9, rtol=0)
        torch.testing.assert_close(logits[row], right, atol=1e-9, rtol=0)
    mix = torch.randn(logits.shape)
    names, parameters = zip(*loop.model.named_parameters(), strict=True)
    losses = ((logits * mix).sum(), (torch.stack([right for right, _ in expected]) * mix).sum())
    gradients = (torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True) for loss in losses)
    for name, a, b in zip(names, *gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


def test_the_prior_of_dynamic_convolution() -> None:
    """As printed in the reference implementation; its mean is exactly one position a step."""
    printed = (0.7400, 0.0747, 0.0416, 0.0295, 0.0232, 0.0193, 0.0168, 0.0150, 0.0138, 0.0130, 0.0132)
    prior = beta_binomial(10, 0.1, 0.9)
    assert prior == pytest.approx(printed, abs=5e-5)
    assert prior == pytest.approx(PRIOR, abs=1e-12)
    assert sum(prior) == pytest.approx(1.0)
    assert sum(k * tap for k, tap in enumerate(prior)) == pytest.approx(1.0)


def test_initial_biases_of_v2b() -> None:
    """softplus^-1(1) = 0.5413, softplus^-1(10) = 9.99995."""
    score = SoftplusMixtureScore(
        query_size=3, memory_size=3, attention_size=4, components=2, initial_step=1.0, initial_width=10.0
    )
    assert score.shape.bias[2:].tolist() == pytest.approx([0.5413, 0.5413, 9.99995, 9.99995], abs=1e-4)


def test_mass_of_a_bump_inside_a_long_source() -> None:
    """Far from the ends the normalised weights are the paper's, whose sum is 1: Coqui's have .4996."""
    score = ExponentialMixtureScore(query_size=1, memory_size=1, attention_size=1, components=1)
    with torch.no_grad():
        score.shape.weight.zero_()
        score.shape.bias.copy_(torch.tensor([0.0, math.log(10.0), 2 * math.log(1.5)]))
    keys = torch.zeros(1, 41, 0)
    scores = score(torch.zeros(1, 1, 1), keys, *score.start(keys, torch.ones(1, 41, dtype=torch.bool)))
    density = [math.exp(-((j - 10) ** 2) / (2 * 1.5**2)) / math.sqrt(2 * math.pi * 1.5**2) for j in range(1, 42)]
    assert sum(density) == pytest.approx(1.0, abs=1e-8)
    assert torch.softmax(scores, -1)[0, 0].tolist() == pytest.approx(density, abs=1e-8)


@pytest.mark.parametrize("arm", ["forward", "forward_agent", "dynamic_convolution"])
def test_weights_reach_as_far_as_they_can(composed: Compose, arm: str) -> None:
    """From position 1 on, at most one position a step (forward), or ten (the taps of the prior, but for 1e-6)."""
    reach, slack = (1, 1e-300) if arm != "dynamic_convolution" else (10, 1e-2)
    model = small(composed, arm)
    weights = model(*pad([[4] * 40]), torch.tensor([[1, 4, 5, 6]]))[1][0].detach()
    for t in range(4):
        assert float(weights[t, (t + 1) * reach + 1 :].sum()) <= slack
        assert float(weights[t, : (t + 1) * reach + 1].sum()) > 1 - slack - 1e-12


@pytest.mark.parametrize(
    ("wiring", "complaint"),
    [
        (("location_convolution", "decoder.score.width=4"), "decoder.score.width: must be odd, so that a filter has a"),
        (("location_convolution", "decoder.score.filters=0"), "decoder.score.filters: must be a whole number of at"),
        (("dynamic_convolution", "decoder.score.prior_alpha=0"), "decoder.score.prior_alpha: must be more than 0"),
        (("dynamic_convolution", "decoder.score.prior_length=0"), "decoder.score.prior_length: must be a whole number"),
        (("gmm_v1", "decoder.score.components=0"), "decoder.score.components: must be a whole number of at least 1"),
        (("gmm_v2b", "decoder.score.initial_width=0"), "decoder.score.initial_width: must be more than 0"),
        (("bi_relative", "decoder.score.attention_size=7"), "decoder.score.attention_size: must be even, for sines"),
        (("mix", "decoder.score.own_weights=1"), "decoder.score.own_weights: must be true or false, not 1"),
        (
            ("mix", "decoder.score.content._target_=attnspan.models.attention.scores.CoverageScore"),
            "decoder.score.content: must remember nothing, and CoverageScore does",
        ),
        (
            ("mix", "decoder.score.location._target_=attnspan.models.attention.scores.AdditiveScore"),
            "decoder.score.location: must look at positions alone, and AdditiveScore has keys of the source",
        ),
        (
            ("one_step", "decoder.score.location._target_=attnspan.models.attention.scores.AdditiveScore"),
            "decoder.score.location: must look at positions alone, and AdditiveScore has keys of the source",
        ),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_what_does_not_fit_is_refused(composed: Compose, wiring: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(InputError) as refused:
        small(composed, *wiring)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


CROSSED = [
    ("luong_general", "decoder/score=forward"),
    ("luong_general", "decoder/score=bi_relative"),
    ("luong_general", "decoder/score=mix", "decoder.input_feeding=true"),
    ("luong_2015", "decoder/score=dynamic_convolution"),
    ("bahdanau_2015", "decoder/score=one_step"),
    ("luong_local_p", "decoder/score=location_convolution", "decoder/normaliser=entmax15"),
    ("forward", "decoder/score@decoder.score.content=general"),
]


@pytest.mark.parametrize("wiring", CROSSED, ids=" ".join)
def test_a_score_goes_with_other_wirings(composed: Compose, wiring: tuple[str, ...]) -> None:
    check_contract(small(composed, *wiring))


@pytest.mark.parametrize("score", ["forward", "gmm_v2b", "mix", "one_step", "bi_relative"])
def test_a_score_that_multiplies_weights_needs_the_softmax(composed: Compose, score: str) -> None:
    with pytest.raises(InputError, match=r"^decoder\.normaliser: \w+Score has the logarithm of weights in its scores"):
        small(composed, "bahdanau", f"decoder/score={score}", "decoder/normaliser=sparsemax")
