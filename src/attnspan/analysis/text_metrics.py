"""Corpus BLEU, chrF and TER, computed by sacrebleu from the texts of a bin, and perplexity per token and character.

They say something where the target is text that people write, and nothing about phones or digits, so a study shows
them where the target is ``bpe`` or ``words`` (nothing but text is cut so) or where it is told to.

A corpus score is no sum over a sum, but a smooth function of sums over examples (n-gram matches, lengths). Its seeds
are replicates like any other; the influence of an example is found by leaving it out (the jackknife), which for a rate
gives exactly the influence that :mod:`attnspan.analysis.statistics` writes down. So the same intervals hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sacrebleu.metrics import BLEU, CHRF, TER

from attnspan.analysis.statistics import Floats, Rates
from attnspan.runs.finished_run import Run

TEXT_METRICS: dict[str, Any] = {"bleu": BLEU, "chrf": CHRF, "ter": TER}
"""Corpus scores in percent, each by the class of sacrebleu that computes it with its defaults.

TER counts edits, so less is better, and more than 100 is possible. It is slow, and given where it is asked for.
"""

PERPLEXITY, CHARACTER_PERPLEXITY = "perplexity", "character_perplexity"
PERPLEXITIES = (PERPLEXITY, CHARACTER_PERPLEXITY)
"""Teacher-forced. Per token (<eos> counted) it depends on what a token is; per character (the end counted) it does not,
as long as no token is unknown: an unknown token is cheap, and stands for whatever was to be spelled."""


def possible(metric: str) -> tuple[float, float]:
    """The least and the greatest value of a corpus score, or of a perplexity."""
    if metric in PERPLEXITIES:
        return 1.0, np.inf
    return 0.0, np.inf if metric == "ter" else 100.0


def is_text(run: Run) -> bool:
    """Whether the run's target is sure to be text."""
    return (run.config.get("data") or {}).get("target_tokens") in ("bpe", "words")


def signature(metric: str) -> str:
    """How sacrebleu names what it computed, version and all."""
    scorer = TEXT_METRICS[metric]()
    scorer.corpus_score(["a"], [["a"]])  # knows the number of references only afterwards
    return str(scorer.get_signature())


def statistics(records: pd.DataFrame, metric: str) -> NDArray[np.int64]:
    """What each of N examples adds to the sums of the corpus score: N x K."""
    scorer = TEXT_METRICS[metric]()
    hypotheses, references = records["hypothesis"].to_list(), records["reference"].to_list()
    return np.array(scorer._extract_corpus_statistics(hypotheses, [references]), dtype=np.int64)


def measure(of_seeds: Sequence[NDArray[np.int64]], metric: str, members: NDArray[np.bool_]) -> Rates:
    """Corpus scores of sets of examples with S seeds.

    Args:
        of_seeds: S times what :func:`statistics` gives, N x K.
        metric: of :data:`TEXT_METRICS`.
        members: M x N, True where a set has the example.
    """
    scorer = TEXT_METRICS[metric]()

    def score(sums: NDArray[np.int64]) -> float:
        return float(scorer._compute_score_from_stats(sums.tolist()).score)

    by_seed: Floats = np.zeros((len(of_seeds), len(members)))
    influence: Floats = np.zeros((len(of_seeds), *members.shape))
    for s, parts in enumerate(of_seeds):
        for m, inside in enumerate(members):
            total = parts[inside].sum(axis=0)
            by_seed[s, m] = score(total)
            n = int(inside.sum())
            if n > 1:
                moved = by_seed[s, m] - np.array([score(total - part) for part in parts[inside]])
                influence[s, m, inside] = (moved - moved.mean()) * np.sqrt((n - 1) / n)
    return Rates(by_seed, influence, members.sum(axis=1))


def perplexity(of_seeds: Sequence[pd.DataFrame], metric: str, members: NDArray[np.bool_]) -> Rates:
    """Perplexity of sets of examples with S seeds: exp of the negative log-likelihood per token, or per character.

    Args:
        of_seeds: S times the records of the same N examples.
        metric: of :data:`PERPLEXITIES`.
        members: M x N, True where a set has the example.
    """
    records = of_seeds[0]
    per = records["target_tokens"] if metric == PERPLEXITY else records["reference"].str.len() + 1
    nll = np.stack([one["nll"].to_numpy() for one in of_seeds]).astype(np.float64)
    rates = Rates.measure(nll, np.asarray(per, dtype=np.float64), members)
    values = np.exp(rates.by_seed)
    return Rates(values, rates.influence * values[:, :, None], rates.counts)  # d exp(x) = exp(x) dx
