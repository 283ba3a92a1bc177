"""Associative recall with two look-ups an output: find the next queried key, then the value that stands with it.

::

                pairs                   queried keys
    source      k4 v1  k0 v7  k9 v1     k9 k4
    position     0  1   2  3   4  5      6  7
    target      v1 v1
    alignment   5-0 1-1     each output needs the value of its key

The decoder must find the queried key in the source before it can look for the pair, within one step.
:mod:`attnspan.data.corpora.synthetic.recall` has the key in the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnspan.data.corpora.synthetic.pairs import KeyValuePairs


@dataclass(frozen=True, kw_only=True)
class RecallTwoHop(KeyValuePairs):
    """The target has the value of each queried key."""

    def outputs(self, queries: Sequence[int], pairs: int) -> list[int]:
        """The source position of each value."""
        return [2 * pair + 1 for pair in queries]
