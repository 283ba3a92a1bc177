"""FIRST: say the first symbol of the source, however many follow (Chiang and Cholak 2022, section 4).

::

    source      1 0 0 1
    target      1
    alignment   0-0

The paper asks whether a bit string begins with 1: one position decides, and a softmax gives it less weight the more
others there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnspan.data.corpora.base import RandomSequences


@dataclass(frozen=True, kw_only=True)
class First(RandomSequences):
    """Sequences of uniformly drawn symbols; the target is the first one."""

    def source_positions(self, sequence: Sequence[int]) -> Sequence[int]:
        """The first position."""
        return [0]
