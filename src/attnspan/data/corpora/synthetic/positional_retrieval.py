"""Positional retrieval: each symbol is the number of the position whose symbol is to be written.

Chowdhury and Caragea 2023, "Monotonic Location Attention for Length Generalization"::

    source      2 0 3 3
    position    0 1 2 3
    target      3 2 3 3
    alignment   2-0 0-1 3-2 3-3     y_i = x_{x_i}

Each output takes two look-ups: read the position, then what stands there. Only the first positions, as many as there
are symbols, can be asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnspan.data.corpora.base import RandomSequences


@dataclass(frozen=True, kw_only=True)
class PositionalRetrieval(RandomSequences):
    """Sequences of symbols, drawn uniformly from those that are a position of the source."""

    def known_symbols(self, length: int) -> int:
        """Symbols are positions of the source."""
        return min(self.symbols, length)

    def source_positions(self, sequence: Sequence[int]) -> Sequence[int]:
        """The symbols themselves."""
        return sequence
