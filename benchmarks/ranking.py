"""How often do the ranking's intervals contain the true value? A simulation, whose output is ``ranking.txt``.

    python benchmarks/ranking.py > benchmarks/ranking.txt

Two arms, three datasets of different difficulty. Scores of runs are normal around known means; the true value is that
of infinitely many runs. rliable draws S of S runs; the report draws S - 1 of S.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from attnspan.analysis.ranking import estimate, interquartile_mean, probability_of_improvement
from attnspan.analysis.statistics import LEVEL, Floats

REPETITIONS = 1_000
DATA = np.array([0.3, 0.6, 0.9])
SPREAD, AHEAD = 0.05, 0.04


def iqm(drawn: list[list[Floats]]) -> Floats:
    """Interquartile mean of the first arm."""
    return interquartile_mean(drawn[0])


def better(drawn: list[list[Floats]]) -> Floats:
    """Probability that the first arm beats the second."""
    return probability_of_improvement(*drawn)


def as_rliable(statistic, arms, generator) -> tuple[float, float]:
    """The percentile interval of draws of S of S runs."""
    drawn = [[runs[generator.integers(0, len(runs), (1_000, len(runs)))] for runs in scores] for scores in arms]
    low, high = np.quantile(statistic(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return low, high


def main() -> None:
    """Print a table in Markdown."""
    generator = np.random.default_rng(0)
    many = [one + SPREAD * generator.normal(size=400_000) for one in DATA]
    truth = {iqm: float(interquartile_mean(many)), better: float(norm.cdf(AHEAD / (SPREAD * np.sqrt(2))))}
    print(f"{REPETITIONS} repetitions; the standard error of a coverage of 95 is 0.7.\n")
    print(
        "| seeds | interquartile mean | probability of improvement | S of S: interquartile mean | S of S: probability |"
    )
    print("|:--|--:|--:|--:|--:|")
    for seeds in (2, 3, 5, 10):
        held = np.zeros(4)
        for _ in range(REPETITIONS):
            arms = [[one + ahead + SPREAD * generator.normal(size=seeds) for one in DATA] for ahead in (0.0, -AHEAD)]
            for column, (statistic, counted) in enumerate(((iqm, 0.5), (better, 1.0))):
                one = estimate(statistic, arms, counted=counted, draws=1_000, seed=int(generator.integers(2**32)))
                low, high = np.nan_to_num([one.low, one.high], nan=one.value)
                held[column] += low <= truth[statistic] <= high
                low, high = as_rliable(statistic, arms, generator)
                held[2 + column] += low <= truth[statistic] <= high
        cells = " | ".join(f"{100 * share:.1f}" for share in held / REPETITIONS)
        print(f"| {seeds} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
