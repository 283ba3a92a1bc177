"""Copy a random sequence.

::

    source      7 3 9 3
    target      7 3 9 3
    alignment   0-0 1-1 2-2 3-3     each output needs the input at the same position
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnspan.data.corpora.base import RandomSequences


@dataclass(frozen=True, kw_only=True)
class Copy(RandomSequences):
    """Sequences of uniformly drawn symbols; the target is the source."""

    def source_positions(self, sequence: Sequence[int]) -> range:
        """The same position."""
        return range(len(sequence))
