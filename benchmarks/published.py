"""Published ratios next to ours: how much quality is left on long sources, and how arms compare.

    python benchmarks/published.py > results/published.md

Ours are read from ``seeds.csv`` of the committed reports in ``results/``; the published ones are written in this file.
Tasks, sizes and metrics differ (BLEU of translations there, 1 - phone error rate of pronunciations here), so what is
compared are ratios within one study, not values. Each of our ratios is the mean over seeds, with the lowest and the
highest seed.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Ours:
    """The quality (1 - error rate, not below 0) of one arm in one row of a report."""

    study: str
    arm: str
    lengths: str
    total: bool = False

    def by_seed(self) -> dict[str, float]:
        """Seed -> quality."""
        with (RESULTS / self.study / "seeds.csv").open(encoding="utf-8", newline="") as file:
            rows = [
                row
                for row in csv.DictReader(file)
                if (row["arm"], row["lengths"], row["total"]) == (self.arm, self.lengths, str(self.total))
            ]
        if not rows:
            raise LookupError(f"{RESULTS / self.study}: no {self.arm} at {self.lengths}")
        return {row["seed"]: max(1 - float(row["error_rate"]), 0.0) for row in rows}

    def over(self, other: Ours) -> str:
        """The ratio to another, seed by seed."""
        mine, its = self.by_seed(), other.by_seed()
        ratios = [mine[seed] / its[seed] for seed in mine if seed in its]
        return f"{mean(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


@dataclass(frozen=True)
class Published:
    """A ratio of two published values."""

    of: float
    over: float

    def __str__(self) -> str:
        return f"{self.of / self.over:.2f} ({self.of:.4g} / {self.over:.4g})"


def with_length() -> Iterator[tuple[str, ...]]:
    """Quality on long sources over quality on short ones, at similar multiples of the longest training length."""
    trained = {60: "[5,60]", 20: "[5,20]", 40: "[5,40]"}
    for model, arm, of, over, longest, far in (
        ("RNNsearch-50, 50 over 20 words", "bahdanau", 26.2, 26.9, 60, "51–60"),
        ("RNNsearch-30, 50 over 20 words", "bahdanau", 9.6, 27.0, 40, "61–70"),
        ("", "bahdanau", 9.6, 27.0, 20, "31–40"),
        ("RNNenc-50, 50 over 20 words", "plain", 8.9, 22.5, 60, "51–60"),
        ("RNNenc-30, 50 over 20 words", "plain", 3.3, 20.7, 40, "61–70"),
        ("", "plain", 3.3, 20.7, 20, "31–40"),
    ):
        label = f"{arm} data.train_lengths={trained[longest]}"
        ratio = Ours("training_length", label, far).over(Ours("training_length", label, "11–20"))
        published = str(Published(of, over)) if model else ""
        yield model, published, f"{arm} trained to {longest}, {far} over 11–20 letters", ratio


def between_arms() -> Iterator[tuple[str, ...]]:
    """Quality of one arm over another's, over all lengths of training."""
    for source, of, over, arm, beside in (
        ("Luong, Table 4: general over dot, global", 17.3, 18.6, "luong_general", "luong_dot"),
        ("Luong, Table 4: general, local-p over global", 19.0, 17.3, "luong_local_p", "luong_general"),
        ("Britz: multiplicative-256 over additive-256", 22.33, 22.33, "luong_general", "bahdanau"),
        ("Britz: no attention (state only) over additive-256", 9.98, 22.33, "plain", "bahdanau"),
    ):
        ratios = [
            Ours(f"long_sequences_full/{data}", arm, "in range", total=True).over(
                Ours(f"long_sequences_full/{data}", beside, "in range", total=True)
            )
            for data in ("pronunciation", "reverse")
        ]
        yield source, str(Published(of, over)), f"{arm} over {beside}", *ratios


def triplet() -> Iterator[tuple[str, ...]]:
    """BLEU and loss of Multi30k, German to English, and BLEU over bahdanau's."""
    with (RESULTS / "multi30k" / "text.csv").open(encoding="utf-8", newline="") as file:
        ours = {row["arm"]: row for row in csv.DictReader(file) if row["total"] == "True"}
    best = float(ours["bahdanau"]["bleu"])
    for model, arm, bleu, loss in (
        ("LSTM without attention", "plain", 13.76, 3.780),
        ("GRU, one vector at every step", "plain_every_step", 20.61, 3.623),
        ("Bahdanau", "bahdanau", 28.30, 3.242),
    ):
        mine = float(ours[arm]["bleu"])
        entropy = math.log(float(ours[arm]["perplexity"]))
        yield (
            model,
            f"{bleu:.2f}",
            f"{bleu / 28.30:.2f}",
            f"{loss:.3f}",
            arm,
            f"{mine:.2f}",
            f"{mine / best:.2f}",
            f"{entropy:.3f}",
        )


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    """Print in Markdown."""
    for row in (head, (":--",) * len(head), *rows):
        print(f"| {' | '.join(row)} |")


def main() -> None:
    """Print the tables."""
    print("## With length\n")
    table(("published", "BLEU ratio", "ours", "quality ratio (lowest–highest seed)"), with_length())
    print("\n## Between arms\n")
    table(("published", "BLEU ratio", "ours", "pronunciation", "reverse"), between_arms())
    print()
    print(
        "Bahdanau et al. 2015, Figure 2 (read off the plot, ± 0.5 BLEU; newstest2014 English to French); Luong et al."
    )
    print(
        "2015, Table 4 (newstest2014 English to German); Britz et al. 2017 (newstest2013 English to German, means of 4"
    )
    print("runs).")
    print("\n## Multi30k, German to English\n")
    ratio = "BLEU over Bahdanau's"
    table(("published", "BLEU", ratio, "test loss", "ours", "BLEU", ratio, "log perplexity"), triplet())
    print()
    print("bentrevett/pytorch-seq2seq, tutorials 1 to 3, one run each. Ours by the report's text.csv.")


if __name__ == "__main__":
    main()
