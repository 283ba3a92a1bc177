"""Reverse a random sequence.

::

    source      7 3 9 4
    target      4 9 3 7
    alignment   3-0 2-1 1-2 0-3     the first output needs the last input
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnspan.data.corpora.base import RandomSequences


@dataclass(frozen=True, kw_only=True)
class Reverse(RandomSequences):
    """Sequences of uniformly drawn symbols; the target is the source in reverse order."""

    def source_positions(self, sequence: Sequence[int]) -> range:
        """From the last position to the first."""
        return range(len(sequence))[::-1]
