"""Per-example scores of hypotheses, and the running averages that validation shows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torchmetrics import Metric

REPEATS = 4
"""So many times in a row must something stand to count as a loop."""
LONGEST_LOOP = 8
"""Loops of up to so many tokens are looked for."""


def edits(hypothesis: Sequence[Hashable], reference: Sequence[Hashable]) -> int:
    """Levenshtein distance: the least number of insertions, deletions and substitutions, each costing 1."""
    return int(Levenshtein.distance(hypothesis, reference))


def longest_loop(tokens: Sequence[Hashable]) -> int:
    """How many times the most repeated n-gram (n up to ``LONGEST_LOOP``) stands in a row; 1 where nothing repeats."""
    most = 1
    for n in range(1, min(LONGEST_LOOP, len(tokens) // 2) + 1):
        same = 0  # tokens in a row that equal the one n before
        for a, b in zip(tokens[n:], tokens, strict=False):
            same = same + 1 if a == b else 0
            most = max(most, same // n + 1)
    return most


def is_repeating(hypothesis: Sequence[Hashable], reference: Sequence[Hashable]) -> bool:
    """Whether the hypothesis says something ``REPEATS`` times or more in a row, and oftener than the reference does."""
    loop = longest_loop(hypothesis)
    return loop >= REPEATS and loop > longest_loop(reference)


class Mean(Metric):
    """A sum over tokens, or sequences, divided by their number, over all batches and devices.

    Batches of different sizes count by what is in them, so the result does not depend on how examples were batched.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, total: Tensor, count: Tensor | int) -> None:
        """Add a batch: ``total`` summed over ``count`` of them (scalars)."""
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        """The mean."""
        return self.total / self.count
