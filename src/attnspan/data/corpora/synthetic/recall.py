"""Associative recall: look up keys in a list of key-value pairs, one look-up an output.

::

                pairs                   queried keys
    source      k4 v1  k0 v7  k9 v1     k9 k4
    position     0  1   2  3   4  5      6  7
    target      k9 v1 k4 v1
    alignment   6-0 5-1 7-2 1-3     a key comes from the queries, a value from the pair of the key before it

:mod:`attnspan.data.corpora.synthetic.recall_two_hop` asks for the values alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnspan.data.corpora.synthetic.pairs import KeyValuePairs


@dataclass(frozen=True, kw_only=True)
class Recall(KeyValuePairs):
    """The target has each queried key and its value."""

    def outputs(self, queries: Sequence[int], pairs: int) -> list[int]:
        """The source position of each key among the queries, and of its value."""
        found = []
        for number, pair in enumerate(queries):
            found += [2 * pairs + number, 2 * pair + 1]
        return found
