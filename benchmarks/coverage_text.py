"""Do the 95% intervals of BLEU and chrF cover 95%? Simulated translations whose true scores are known.

Two arms, S seeds, 100 sentences of 5 to 25 words. A word of sentence i that arm a produces with seed s differs from the
reference's with a probability whose logit is

    level(a) + seed(a, s) + difficulty(i) + likes(a, i)

and one word in fifty is left out. The true score is that of a corpus of 4,000 such sentences, averaged over seeds by
Gauss-Hermite quadrature with seven points.

    python benchmarks/coverage_text.py [repetitions] > benchmarks/coverage_text.txt

Printed in percent: how often the intervals contain the true score of the first arm, and the true difference of the
arms.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from attnspan.analysis.statistics import Floats, Rates
from attnspan.analysis.text_metrics import CORPUS_SCORES, CorpusScore

WORDS = np.array([f"{first}{vowel}{last}" for first in "bdfgklmnprst" for vowel in "aeiou" for last in "lmnrst"])
LEVELS = (-1.0, -1.4)
"""The logit of a wrong word, for each of the two arms."""
DIFFICULTY, LIKES, LEFT_OUT = 0.7, 0.4, 0.02
SENTENCES = 100
METRICS = [score for score in CORPUS_SCORES if not score.on_request]


@dataclass(frozen=True)
class World:
    """The true spread of seeds."""

    name: str
    spread: float
    """Standard deviation of the seed effect on the logit."""


WORLDS = (World("seeds alike", 0.0), World("seeds differ a lot", 0.4))


def references(count: int, generator: np.random.Generator) -> list[list[str]]:
    """Sentences of words, a few common and most of them rare."""
    share = 1 / np.arange(2, len(WORDS) + 2)
    lengths = generator.integers(5, 26, count)
    return [list(generator.choice(WORDS, length, p=share / share.sum())) for length in lengths]


def corrupted(reference: list[str], logit: float, generator: np.random.Generator) -> str:
    """The hypothesis for a reference."""
    wrong = generator.random(len(reference)) < expit(logit)
    instead = generator.choice(WORDS, len(reference))
    kept = generator.random(len(reference)) >= LEFT_OUT
    return " ".join(np.where(wrong, instead, reference)[kept])


def draw(effects: Floats, count: int, generator: np.random.Generator) -> list[list[pd.DataFrame]]:
    """One study: the records of each seed of each arm, on the same sentences; ``effects`` are arms x seeds."""
    sentences = references(count, generator)
    texts = [" ".join(one) for one in sentences]
    hard = generator.normal(0, DIFFICULTY, count)
    arms = []
    for level, of_seeds in zip(LEVELS, effects, strict=True):
        logits = level + hard + generator.normal(0, LIKES, count)
        out = [
            [corrupted(*one, generator) for one in zip(sentences, logits + effect, strict=True)] for effect in of_seeds
        ]
        arms.append([pd.DataFrame({"reference": texts, "hypothesis": one}) for one in out])
    return arms


def scored(arms: list[list[pd.DataFrame]], metric: CorpusScore) -> Rates:
    """The scores of both arms paired."""
    every = np.ones((1, len(arms[0][0])), dtype=bool)
    return Rates.paired(*(metric.rates(arm, every) for arm in arms))


def truth(world: World, generator: np.random.Generator) -> dict[str, Floats]:
    """Metric to the expected score of each arm."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(7)
    arms = draw(np.tile(world.spread * nodes, (len(LEVELS), 1)), 4_000, generator)
    return {metric.name: weights / weights.sum() @ scored(arms, metric).by_seed for metric in METRICS}


def simulate(world: World, seeds: int, repetitions: int, known: dict[str, Floats]) -> list[float]:
    """Shares of repetitions, in percent: for each metric of the first arm's score and of the difference."""
    generator = np.random.default_rng([seeds, WORLDS.index(world)])
    contrasts = np.array([[1.0, 0.0], [1.0, -1.0]])
    held = np.zeros((len(METRICS), len(contrasts)))
    for _ in range(repetitions):
        arms = draw(world.spread * generator.normal(size=(len(LEVELS), seeds)), SENTENCES, generator)
        for row, metric in enumerate(METRICS):
            rates = scored(arms, metric)
            held[row] += np.abs(contrasts @ (rates.mean - known[metric.name])) <= rates.half_widths(contrasts)
    return [float(share) for share in (100 * held / repetitions).ravel()]


def main() -> None:
    """Print a table."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    error = 100 * np.sqrt(0.95 * 0.05 / repetitions)
    print(f"{repetitions} repetitions; the standard error of a coverage of 95 is {error:.1f}.\n")
    print("| world | seeds | BLEU | difference in BLEU | chrF | difference in chrF |\n|:--|--:|--:|--:|--:|--:|")
    for world in WORLDS:
        known = truth(world, np.random.default_rng(WORLDS.index(world)))
        for seeds in (3, 5, 10):
            cells = [f"{share:.1f}" for share in simulate(world, seeds, repetitions, known)]
            print(f"| {world.name} | {seeds} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
