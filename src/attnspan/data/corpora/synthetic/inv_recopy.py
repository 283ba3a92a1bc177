"""Inverse ReCopy: the source has each symbol once, three or five times, and the target has it once.

Chowdhury and Caragea 2023, "Monotonic Location Attention for Length Generalization"::

    source      7 7 7 7 7 0 4 4 4       of 0 ... 9, a third stands once, a third three times
    target      7 0 4
    alignment   0-0 1-0 2-0 3-0 4-0 5-1 6-2 7-2 8-2

The path is monotonic with steps of the contents' length, and equal neighbours must be counted: ten 7 are two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from attnspan.data.corpora.synthetic.recopy import ReCopy


@dataclass(frozen=True, kw_only=True)
class InvReCopy(ReCopy):
    """ReCopy with source and target exchanged; ``train_lengths`` and ``test_lengths`` are those of the targets."""

    def examples(self, split: str, lengths: Iterator[int]) -> Iterator[dict[str, Any]]:
        """One target per length."""
        for example in super().examples(split, lengths):
            links = (link.split("-") for link in example["alignment"].split())
            yield {
                "source": example["target"],
                "target": example["source"],
                "alignment": " ".join(f"{copy}-{symbol}" for symbol, copy in links),
            }
