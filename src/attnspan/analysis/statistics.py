"""Intervals and p-values for rates that were measured on the same examples with a few seeds.

One arm, trained with S seeds and tested on N examples, gives an S x N table of, say, edits. Seeds and examples are two
crossed random factors: another study would draw other seeds *and* other examples. The variance of a mean over such a
table has three parts, which the table itself tells apart (a two-way random effects model):

- ``V_seed``, the variance over seeds of the seed means, divided by S;
- ``V_example``, the variance over examples of the example means, divided by N;
- ``V_interaction``, the residual variance, divided by S N: both of the above contain it, so it is subtracted once.

``V = V_seed + max(V_example - V_interaction, 0)``. A rate (edits per reference token) is not a mean but a ratio of
sums. It is linearised first: each example's *influence* ``(edits - rate * tokens) / sum(tokens)`` replaces its value,
and sums to zero within a bin.

With 3 seeds V_seed has 2 degrees of freedom. The choice is the quantile. All but the second were measured by
``benchmarks/interval_coverage.py`` (its output is next to it):

- a percentile bootstrap over seeds and examples covers far too little, because 3 seeds are not a population;
- t with S - 1 degrees of freedom for all of V must cover near 100% where the examples dominate: 4.30 times the standard
  error with 3 seeds;
- Satterthwaite's degrees of freedom cover too little with 2 seeds: they trust a V_seed that is small by chance;
- Cochran and Cox's quantile, the mean of t(S - 1) and t(n - 1) weighted by the two parts of V, holds at 2, 3, 5 and 10
  seeds, whichever part dominates. It is conservative where both parts are equal. This is the one used here.

Coverage of nominal 95% in those simulations, where seeds matter not at all, a little, a lot, or are skewed: differences
95.0 to 97.9% at 3, 5 and 10 seeds (94.6 to 98.6% at 2), spans 93.2 to 98.0% (94.1 to 98.8%), including the spans of
four arms whose best is chosen by the same results. A difference where there is none is found in 2.1 to 5.0% of bins
(1.4 to 5.4%), at the low end where seeds do not matter. The rate of a single arm with skewed seeds is covered in 91.0%
at 3 seeds, because 3 seeds seldom show the bad one.

No interval holds where a share of an arm's seeds fails outright (an error rate of .83 at every length). At 2, 3, 5 and
10 seeds a difference is covered in 75, 71, 85, 94% where a third fails, 82, 74, 74, 89% where a fifth does and 91, 89,
82, 83% where a tenth does. :mod:`attnspan.analysis.seed_groups` has the seeds shown instead where they form two groups.

By chance two seeds may agree almost exactly. So no interval is ever narrower than the one for the draw of examples
alone: t(n - 1) with V_example.

One seed says nothing about seeds: the interval then covers the draw of examples only, and the report says so wherever
it shows one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]

LEVEL = 0.95
"""The confidence level of every interval."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    ``low`` and ``high`` are nan where the data do not vary at all (no error by any seed on any example): an interval of
    width zero would claim more than the data show.
    """

    value: float
    low: float
    high: float
    seeds: int

    def clipped(self, lowest: float, highest: float) -> Estimate:
        """The same with the interval cut to the possible values, which costs no coverage."""
        low, high = np.clip([self.low, self.high], lowest, highest)
        return Estimate(self.value, float(low), float(high), self.seeds)


NOTHING = Estimate(np.nan, np.nan, np.nan, 0)
"""An estimate that is not defined."""


@dataclass(frozen=True)
class Rates:
    """K rates, each measured with the same S seeds on some of the same N examples."""

    by_seed: Floats
    """S x K."""
    influence: Floats
    """S x K x N: by how much each example moves each rate; zero for examples that the rate does not count."""
    counts: NDArray[np.int64]
    """K: the examples that each rate counts."""

    @classmethod
    def measure(cls, numerators: Floats, denominators: Floats, members: NDArray[np.bool_]) -> Rates:
        """Sum over sum, for each seed and each set of examples.

        Args:
            numerators: S x N, for example edits.
            denominators: N, for example reference tokens, or S x N where they depend on the seed.
            members: K x N, True where the rate counts the example.
        """
        chosen = members.astype(np.float64)
        denominators = np.broadcast_to(denominators, numerators.shape)
        totals = denominators @ chosen.T  # S x K
        counts = members.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            by_seed = numerators @ chosen.T / totals
            unbias = np.sqrt(counts / np.maximum(counts - 1, 1)) / totals
            residuals = numerators[:, None, :] - by_seed[:, :, None] * denominators[:, None, :]
            influence = np.where(members, residuals * unbias[:, :, None], 0.0)
        return cls(by_seed, influence, counts)

    @staticmethod
    def paired(first: Rates, second: Rates) -> Rates:
        """The rates of two arms with the same seeds on the same examples, in one table."""
        return Rates(
            np.concatenate([first.by_seed, second.by_seed], axis=1),
            np.concatenate([first.influence, second.influence], axis=1),
            np.concatenate([first.counts, second.counts]),
        )

    @property
    def seeds(self) -> int:
        """S."""
        return len(self.by_seed)

    @cached_property
    def mean(self) -> Floats:
        """K: the rates, averaged over seeds."""
        return self.by_seed.mean(axis=0)

    @cached_property
    def _covariances(self) -> tuple[Floats, Floats, Floats]:
        """Three K x K: V_seed, V_example, V_interaction, of the mean over seeds."""
        S = self.seeds
        over_seeds = self.influence.mean(axis=0)
        example = np.einsum("kn,ln->kl", over_seeds, over_seeds)  # no BLAS: its threads cost more than they give here
        if S == 1:
            return np.zeros_like(example), example, np.zeros_like(example)
        centred = self.by_seed - self.mean
        seed = centred.T @ centred / ((S - 1) * S)
        squares = np.einsum("skn,sln->kl", self.influence, self.influence)
        return seed, example, (squares - S * example) / (S * (S - 1))

    def estimate(self, weights: Floats, value: float | None = None) -> Estimate:
        """A function of the rates, with its interval.

        Args:
            weights: K: the function's gradient at the mean (for a linear function its weights).
            value: the function's value at the mean; None for a linear function.
        """
        value = float(weights @ self.mean) if value is None else value
        half = float(self.half_widths(weights[None])[0]) or np.nan
        return Estimate(value, value - half, value + half, self.seeds)

    def p_value(self, weights: Floats) -> float:
        """The two-sided p-value of a linear function against zero: below 0.05 where its interval excludes zero.

        It is nan where nothing varies and the function is not zero.
        """
        variance = self._variance(weights[None])
        value = float(weights @ self.mean)
        if not variance.half_widths()[0] > 0:
            return 1.0 if value == 0 else np.nan
        return variance.p_value(value)

    def half_widths(self, weights: Floats) -> Floats:
        """Half the width of the interval of each linear function; ``weights`` is M x K, the answer M."""
        return self._variance(weights).half_widths()

    def _variance(self, weights: Floats) -> Variance:
        parts = [np.einsum("mk,kl,ml->m", weights, matrix, weights) for matrix in self._covariances]
        rounding = 1e-18 * np.maximum(np.abs(weights).max(axis=1), 1.0) ** 2
        seed, example, interaction = (np.where(part > rounding, part, 0.0) for part in parts)
        smallest = np.where(weights != 0, self.counts, np.iinfo(np.int64).max).min(axis=1)
        return Variance(seed, example, interaction, self.seeds - 1, np.maximum(smallest - 1, 1).astype(np.float64))


@dataclass(frozen=True)
class Variance:
    """The parts of the variance of M estimates, and their degrees of freedom (of V_example, of its smallest bin)."""

    seed: Floats
    example: Floats
    interaction: Floats
    seed_df: int
    example_df: Floats

    def half_widths(self) -> Floats:
        """Half the width of each interval: Cochran and Cox's quantile, and never less than V_example alone gives."""
        return self._tail((1 - LEVEL) / 2)

    def p_value(self, value: float) -> float:
        """1 - the level at which the interval around ``value`` just touches zero, by bisection on a log scale."""
        if value == 0:
            return 1.0
        low, high = -700.0, 0.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self._tail(np.exp(middle) / 2)[0] < abs(value) else (middle, high)
        return float(np.exp(high))

    def _tail(self, tail: float) -> Floats:
        of_seeds = -stdtrit(self.seed_df, tail) if self.seed_df else 0.0
        of_examples = -stdtrit(self.example_df, tail)
        drawn = np.maximum(self.example - self.interaction, 0.0)
        total = self.seed + drawn
        quantile = (self.seed * of_seeds + drawn * of_examples) / np.where(total > 0, total, 1.0)
        return np.maximum(quantile * np.sqrt(total), of_examples * np.sqrt(self.example))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction for several tests; nan stays nan and does not count as a test."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full_like(p, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return [float(one) for one in adjusted]


def randomisation(differences: Floats, members: NDArray[np.bool_], *, draws: int = 9_999, seed: int = 0) -> Floats:
    """Paired randomisation over examples: two-sided p-values for a sum of differences that is zero.

    If two systems were equal, the two results of each example could be swapped, which changes the sign of their
    difference. This tests whether *these trained models* differ on sources like these. It knows nothing of other seeds,
    so it is no test of the arms: where seeds vary, it rejects far too often (see ``benchmarks/interval_coverage.py``).

    Args:
        differences: N: first minus second, for every example.
        members: K x N: the examples of each of K tests.
        draws: random sign assignments; the smallest possible p-value is 1 / (draws + 1).
        seed: of the assignments; the same in every call, so that a report is reproducible.

    Returns:
        K p-values.
    """
    generator = np.random.default_rng(seed)
    values = np.where(members, differences, 0.0).T.astype(np.float32)  # N x K
    observed = np.abs(values.sum(axis=0))
    tolerance = 1e-5 * np.abs(values).sum(axis=0)
    as_extreme = np.zeros(len(members))
    done = 0
    while done < draws:
        rows = min(1_000, draws - done)
        bits = np.unpackbits(generator.integers(0, 256, (rows, -(-len(values) // 8)), dtype=np.uint8), axis=1)
        signs = 2 * bits[:, : len(values)].astype(np.float32) - 1
        as_extreme += (np.abs(signs @ values) >= observed - tolerance).sum(axis=0)
        done += rows
    return np.asarray((1 + as_extreme) / (1 + draws))
