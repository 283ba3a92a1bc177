"""Corpus BLEU, chrF and TER, computed by sacrebleu from the texts of a bin, and perplexity per token and character.

They suit targets that are written text, and say nothing about phones or digits. So a study shows them where the target
is cut into ``bpe`` or ``words``, which only text is, or where it is told to.

A corpus score is not a ratio of two sums, but a smooth function of sums over examples (n-gram matches, lengths). Its
seeds are replicates like any other. The influence of an example is found by leaving it out (the jackknife), which for a
ratio gives exactly the influence that :mod:`attnspan.analysis.statistics` computes. So the same intervals hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sacrebleu import metrics
from sacrebleu.metrics import BLEU, CHRF

from attnspan.analysis.metrics import HIGHER, LOWER, Metric
from attnspan.analysis.statistics import Floats, Rates
from attnspan.runs.finished_run import Run


@dataclass(frozen=True)
class CorpusScore(Metric):
    """A corpus score in percent."""

    scorer: Callable[[], Any]
    """The class of sacrebleu that computes it, with its defaults."""
    _: KW_ONLY
    on_request: bool = False
    """Whether it is slow, and so given only on request."""

    @property
    def noun(self) -> str:
        """As it is called everywhere."""
        return self.label

    def signature(self) -> str:
        """What sacrebleu says it computed, with its version."""
        scorer = self.scorer()
        scorer.corpus_score(["a"], [["a"]])  # only then it knows the number of references
        return str(scorer.get_signature())

    def statistics(self, records: pd.DataFrame) -> NDArray[np.int64]:
        """What each of N examples adds to the sums of the corpus score: N x K."""
        hypotheses, references = records["hypothesis"].to_list(), records["reference"].to_list()
        return np.array(self.scorer()._extract_corpus_statistics(hypotheses, [references]), dtype=np.int64)

    def rates(self, records: Sequence[pd.DataFrame], members: NDArray[np.bool_]) -> Rates:
        """As :meth:`Metric.rates`."""
        scorer = self.scorer()

        def score(sums: NDArray[np.int64]) -> float:
            return float(scorer._compute_score_from_stats(sums.tolist()).score)

        by_seed: Floats = np.zeros((len(records), len(members)))
        influence: Floats = np.zeros((len(records), *members.shape))
        for s, of_seed in enumerate(records):
            parts = self.statistics(of_seed)
            for m, inside in enumerate(members):
                total = parts[inside].sum(axis=0)
                by_seed[s, m] = score(total)
                n = int(inside.sum())
                if n > 1:
                    moved = by_seed[s, m] - np.array([score(total - part) for part in parts[inside]])
                    influence[s, m, inside] = (moved - moved.mean()) * np.sqrt((n - 1) / n)
        return Rates(by_seed, influence, members.sum(axis=1))


@dataclass(frozen=True)
class Perplexity(Metric):
    """exp of the teacher-forced negative log-likelihood per unit of the reference."""

    units: Callable[[pd.DataFrame], pd.Series]
    """How many units the reference of each record has."""

    def rates(self, records: Sequence[pd.DataFrame], members: NDArray[np.bool_]) -> Rates:
        """As :meth:`Metric.rates`."""
        nll = np.stack([of_seed["nll"].to_numpy() for of_seed in records]).astype(np.float64)
        rates = Rates.measure(nll, np.asarray(self.units(records[0]), dtype=np.float64), members)
        values = np.exp(rates.by_seed)
        return Rates(values, rates.influence * values[:, :, None], rates.counts)  # d exp(x) = exp(x) dx


_GOOD: Any = {"better": HIGHER, "best": 100.0, "worst": 0.0}

TER = CorpusScore(  # of edits, so it can exceed 100
    "ter", "Corpus TER (edits in percent of words, less is better)", metrics.TER,
    label="TER", digits=1, highest=np.inf, on_request=True, better=LOWER, best=0.0, worst=100.0,
)  # fmt: skip
CORPUS_SCORES = (
    CorpusScore("bleu", "Corpus BLEU (0 to 100)", BLEU, digits=1, highest=100.0, label="BLEU", **_GOOD),
    CorpusScore("chrf", "Corpus chrF (0 to 100)", CHRF, digits=1, highest=100.0, label="chrF", **_GOOD),
    TER,
)  # fmt: skip
PERPLEXITIES = (
    Perplexity(
        "perplexity", "Perplexity per token, teacher-forced", lambda records: records["target_tokens"],
        digits=2, lowest=1.0, highest=np.inf, better=LOWER,
    ),
    Perplexity(
        "character_perplexity", "Perplexity per character, teacher-forced",
        lambda records: records["reference"].str.len() + 1, digits=2, lowest=1.0, highest=np.inf, better=LOWER,
    ),
)  # fmt: skip
"""Per token (``<eos>`` included) it depends on the tokenisation. Per character (the end included) it does not, unless
tokens are unknown: an unknown token is cheap, whatever text it stands for."""


def is_text(run: Run) -> bool:
    """Whether the run's target is certainly text."""
    return (run.config.get("data") or {}).get("target_tokens") in ("bpe", "words")
