"""Do the report's 95% intervals cover 95%? Simulated studies whose true rates are known.

Two arms (or four), S seeds, five length bins of 40 to 200 sources. A token of example i, decoded by arm a with seed s,
is wrong with a probability whose logit is

    curve(a, length) + seed(a, s) * (0.5 + length / 60) + difficulty(i) + likes(a, i) + luck(a, s, i)

so a seed shifts a whole curve, some sources are hard for all arms, and each arm has sources that it finds harder than
the others do. The number of wrong tokens is binomial. The true rate of a bin is the expectation over all random terms
at that length, computed by quadrature.

    python benchmarks/interval_coverage.py [repetitions] > benchmarks/interval_coverage.txt

Printed for each world and number of seeds, in percent: how often the 95% intervals contain the true value (aim: 95,
within 92 to 98), and how often a difference is found where there is none (aim: 5, within 3 to 7; fewer is safe but
costs power). With two arms the span of the first is tested, with four the span of every arm that has one. The best arm,
which sets the threshold, is chosen by the results of each repetition. Where the seeds of an arm fall into two groups
the report gives no interval ("two groups of seeds"); what is left is "differences, one group".
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, stdtrit

from attnspan.analysis.lengths.axis import LengthAxis
from attnspan.analysis.lengths.spans import Span, find_span
from attnspan.analysis.seed_groups import split
from attnspan.analysis.statistics import Floats, Rates, holm, randomisation

BINS = {8: 40, 20: 60, 32: 100, 44: 200, 56: 200}
"""Source length (and reference tokens) -> sources."""
LENGTHS = np.repeat(list(BINS), list(BINS.values()))
AT = np.array(list(BINS), dtype=float)
SOURCE = LengthAxis("source")
MEMBERS = np.equal(LENGTHS, AT[:, None])
B = len(BINS)
BIN_TOKENS = AT * list(BINS.values()) / (AT * list(BINS.values())).sum()
"""Share of all reference tokens that each bin has."""
DIFFICULTY, LIKES, LUCK = 0.7, 0.4, 0.4
FAILED = 0.83
"""The error rate of a seed that fails outright, as measured."""


@dataclass(frozen=True)
class World:
    """The true curves and the spread of seeds."""

    name: str
    spread: float
    """Standard deviation of the seed effect, on the logit of being wrong."""
    others: tuple[float | None, ...]
    """How far the other arms' logits lie below those of the first; None for an arm that length does not affect."""
    keep: float
    """The share of quality to keep, chosen so that the first arm's span lies well inside the lengths."""
    skewed: bool = False
    """Whether seed effects are exponential: most seeds are good, some are bad."""
    fail: float = 0.0
    """Share of the first arm's seeds that learn nothing: their error rate is ``FAILED`` at every length."""

    def curves(self) -> Floats:
        """Logit of an error, arm x length."""
        first = -1.2 + 1.8 * (1 - np.exp(-AT / 25))
        return np.stack([first, *(np.full(B, -2.0) if gap is None else first - gap for gap in self.others)])

    @property
    def alike(self) -> bool:
        """Whether all arms have the same curve."""
        return not any(gap != 0 for gap in self.others)

    def truth(self) -> Floats:
        """Expected error rate, arm x length."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        weights = weights / weights.sum()
        noise = np.sqrt(DIFFICULTY**2 + LIKES**2 + LUCK**2) * nodes
        if self.skewed:
            quantiles = (np.arange(400) + 0.5) / 400
            seed, seed_weights = self.spread * (-np.log1p(-quantiles) - 1), np.full(400, 1 / 400)
        else:
            seed, seed_weights = self.spread * nodes, weights
        logits = self.curves()[:, :, None, None] + noise[:, None] + seed * (0.5 + AT / 60)[:, None, None]
        truth = np.einsum("abns,n,s->ab", expit(logits), weights, seed_weights)
        truth[0] = (1 - self.fail) * truth[0] + self.fail * FAILED
        return truth

    def draw(self, seeds: int, generator: np.random.Generator) -> list[Rates]:
        """Draw one study: the rates of every arm."""
        N = len(LENGTHS)
        hard = generator.normal(0, DIFFICULTY, N)
        arms = []
        for a, curve in enumerate(self.curves()):
            effect = generator.exponential(1, seeds) - 1 if self.skewed else generator.normal(0, 1, seeds)
            logits = np.repeat(curve, list(BINS.values())) + hard + generator.normal(0, LIKES, N)
            logits = (
                logits + self.spread * effect[:, None] * (0.5 + LENGTHS / 60) + generator.normal(0, LUCK, (seeds, N))
            )
            wrong_share = expit(logits)
            if self.fail and a == 0:
                wrong_share[generator.random(seeds) < self.fail] = FAILED
            wrong = generator.binomial(LENGTHS, wrong_share).astype(float)
            arms.append(Rates.measure(wrong, LENGTHS.astype(float), MEMBERS))
        return arms


OF_TWO = (
    World("arms alike, seeds alike", 0.0, (0.0,), 0.75),
    World("arms alike, seeds differ a little", 0.1, (0.0,), 0.75),
    World("arms alike, seeds differ a lot", 0.4, (0.0,), 0.75),
    World("second arm better, seeds differ a little", 0.1, (None,), 0.6),
    World("second arm better, seeds differ a lot", 0.4, (None,), 0.6),
    World("second arm better, some seeds fail (skewed)", 0.3, (None,), 0.6, skewed=True),
    World("second arm better, a third of the first's seeds fail outright", 0.1, (None,), 0.6, fail=1 / 3),
    World("second arm better, a fifth of the first's seeds fail outright", 0.1, (None,), 0.6, fail=1 / 5),
    World("second arm better, a tenth of the first's seeds fail outright", 0.1, (None,), 0.6, fail=1 / 10),
)
OF_FOUR = (
    World("all alike, seeds alike", 0.0, (0.0, 0.0, 0.0), 0.75),
    World("all alike, seeds differ a lot", 0.4, (0.0, 0.0, 0.0), 0.75),
    World("all alike, seeds differ wildly", 1.0, (0.0, 0.0, 0.0), 0.75),
    World("each a little better, seeds differ a little", 0.1, (0.1, 0.2, 0.3), 0.7),
    World("each a little better, seeds differ a lot", 0.4, (0.1, 0.2, 0.3), 0.7),
    World("each a little better, some seeds fail (skewed)", 0.3, (0.1, 0.2, 0.3), 0.7, skewed=True),
)


def span_of(arms: list[Rates], which: int, keep: float) -> Span | None:
    """The span of one arm as a report finds it: the best arm has the fewest errors on the shortest sources."""
    rates, best = arms[0], min(range(len(arms)), key=lambda arm: float(arms[arm].mean[0]))
    for other in arms[1:]:
        rates = Rates.paired(rates, other)
    columns = list(range(which * B, which * B + B))
    return find_span(rates, arm=columns, best=best * B, axis=SOURCE, at=AT, shortest=4, longest=60, keep=keep)


def true_spans(truth: Floats, keep: float) -> list[float | None]:
    """The span of each arm's true curve; None if it is beyond the tested lengths."""
    known = [Rates(curve[None], np.zeros((1, B, 2)), np.full(B, 30)) for curve in truth]
    spans = [span_of(known, arm, keep) for arm in range(len(truth))]
    return [None if span is None or span.length.censored else span.length.value for span in spans]


def misses(span: Span, length: float) -> tuple[bool, bool]:
    """Whether a length lies below a span's interval, and whether it lies above; a censored end is open."""
    low = -np.inf if span.low.censored == "<" else span.low.value
    high = np.inf if span.high.censored == ">" else span.high.value
    return length < low - 0.1, length > high + 0.1


def simulate(world: World, seeds: int, repetitions: int) -> dict[str, float]:
    """Shares of repetitions, in percent."""
    generator = np.random.default_rng([seeds, OF_TWO.index(world)])
    truth = world.truth()
    unit = np.hstack([np.eye(B), -np.eye(B)])
    slope = (AT - AT.mean()) / ((AT - AT.mean()) ** 2).sum()
    growth = np.concatenate([slope, -slope])
    differences, interaction = unit @ truth.ravel(), growth @ truth.ravel()
    span = None if world.fail else true_spans(truth, world.keep)[0]
    assert world.fail or span is not None
    hits: dict[str, list[float]] = {}

    def note(what: str, value: float) -> None:
        hits.setdefault(what, []).append(100 * value)

    for repetition in range(repetitions):
        arms = world.draw(seeds, generator)
        rates = Rates.paired(*arms)
        error = np.abs(unit @ rates.mean - differences)
        note("levels", float(np.mean(np.abs(rates.mean - truth.ravel()) <= rates.half_widths(np.eye(2 * B)))))
        covered = float(np.mean(error <= rates.half_widths(unit)))
        note("differences", covered)
        split_seeds = any(split(arm.by_seed @ BIN_TOKENS) is not None for arm in arms)
        note("two groups of seeds", split_seeds)
        if not split_seeds:
            note("differences, one group", covered)
        note("growth", abs(growth @ rates.mean - interaction) <= rates.half_widths(growth[None])[0])
        if span is not None:
            found = span_of(arms, 0, world.keep)
            note("spans", found is not None and not any(misses(found, span)))
            note("spans, both ends known", found is not None and not found.low.censored + found.high.censored)
        for other, half in other_methods(rates, unit[2], generator).items():
            note(other, error[2] <= half)
        if world.alike:
            p = [rates.p_value(one) for one in unit]
            note("false: a bin", float(np.mean(np.array(p) < 0.05)))
            note("false: any bin, Holm", min(holm(p)) < 0.05)
            if repetition < repetitions // 5:
                paired = (arms[0].influence - arms[1].influence).mean(axis=0).sum(axis=0)
                paired += MEMBERS.T @ ((arms[0].mean - arms[1].mean) / MEMBERS.sum(axis=1))
                note("false: models", float(np.mean(randomisation(paired, MEMBERS, draws=499) < 0.05)))
    return {what: float(np.mean(values)) for what, values in hits.items()}


def simulate_choice(world: World, seeds: int, repetitions: int) -> dict[str, float]:
    """Shares of all spans in all repetitions, in percent."""
    generator = np.random.default_rng([seeds, len(OF_TWO) + OF_FOUR.index(world)])
    spans = true_spans(world.truth(), world.keep)
    missed = []
    for _ in range(repetitions):
        arms = world.draw(seeds, generator)
        for arm, length in enumerate(spans):
            if length is not None:
                found = span_of(arms, arm, world.keep)
                missed.append((True, True) if found is None else misses(found, length))
    below, above = (100 * np.mean(ends) for ends in zip(*missed, strict=True))
    held = 100 * (1 - np.mean([any(ends) for ends in missed]))
    return {"spans": held, "true one shorter": below, "true one longer": above}


def other_methods(rates: Rates, weights: Floats, generator: np.random.Generator) -> dict[str, float]:
    """Half-widths by other methods of the third bin's difference, to show why they are not used."""
    S = rates.seeds
    variance = rates._variance(weights[None])
    seed, example, interaction = (float(part[0]) for part in (variance.seed, variance.example, variance.interaction))
    n = int(variance.example_df[0]) + 1
    total = seed + max(example - interaction, 0)
    df = total**2 / (seed**2 / (S - 1) + example**2 / (n - 1) + interaction**2 / ((S - 1) * (n - 1)))
    values = (rates.influence * weights[:, None]).sum(axis=1)[:, MEMBERS[2]] * n  # S x n, centred
    values = values + ((rates.by_seed - rates.mean) @ weights)[:, None]
    picked_seeds, picked = generator.integers(0, S, (200, S)), generator.integers(0, n, (200, n))
    means = [values[np.ix_(rows, columns)].mean() for rows, columns in zip(picked_seeds, picked, strict=True)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {
        "t over seeds only": stdtrit(S - 1, 0.975) * np.sqrt(seed),
        "Satterthwaite": stdtrit(df, 0.975) * np.sqrt(total),
        "bootstrap": (high - low) / 2,
        "examples only": stdtrit(n - 1, 0.975) * np.sqrt(example),
    }


COLUMNS = (
    "levels",
    "differences",
    "two groups of seeds",
    "differences, one group",
    "growth",
    "spans",
    "spans, both ends known",
    "false: a bin",
    "false: any bin, Holm",
    "false: models",
)
OTHERS = ("t over seeds only", "Satterthwaite", "bootstrap", "examples only")


CHOICE = ("spans", "true one shorter", "true one longer")
SEEDS = (2, 3, 5, 10)


def main() -> None:
    """Print the tables."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    two = {(world, seeds): simulate(world, seeds, repetitions) for world in OF_TWO for seeds in SEEDS}
    four = {(world, seeds): simulate_choice(world, seeds, repetitions // 2) for world in OF_FOUR for seeds in SEEDS}
    error = 100 * np.sqrt(0.95 * 0.05 / repetitions)
    print(f"{repetitions} repetitions; the standard error of a coverage of 95 is {error:.1f}.")
    for title, found, columns in (
        ("The report's intervals", two, COLUMNS),
        (f"Spans where the best of four arms is chosen ({repetitions // 2} repetitions, all arms)", four, CHOICE),
        ("What other methods cover (a difference)", two, OTHERS),
    ):
        print(f"\n## {title}\n\n| world | seeds | {' | '.join(columns)} |\n|:--|--:|{'--:|' * len(columns)}")
        for (world, seeds), shares in found.items():
            cells = [f"{shares[column]:.1f}" if column in shares else "" for column in columns]
            print(f"| {world.name} | {seeds} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
