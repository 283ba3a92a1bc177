"""Multi-query associative recall whose keys are the decoder's input, as in the paper (Arora et al. 2024).

::

                pairs, noise between them
    source      k4 v1 x3 k0 v7 k9 v1 x5
    position     0  1  2  3  4  5  6  7
    target      k9 v1 k4 v1
    given       0     2                 the decoder reads the keys, and nobody asks it to produce them
    alignment   6-1 1-3

A value takes one look-up, by the token that the decoder has just read. Bahdanau's query is the state before it reads
that token, so that its attention comes too early; Luong's is the state after it.
:mod:`attnspan.data.corpora.synthetic.mqar` has the keys in the source, and the model says which comes next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from attnspan.data.corpora.synthetic.mqar import Mqar


@dataclass(frozen=True, kw_only=True)
class MqarGivenKeys(Mqar):
    """A source of S tokens has ``pairs`` pairs, and noise in all other places; ``queries`` keys are in the target."""

    gives_tokens: ClassVar[bool] = True

    @property
    def least_length(self) -> int:
        """Tokens of a source without noise."""
        return 2 * self.pairs

    def ask(self, source: list[str], queries: list[tuple[str, int]]) -> dict[str, Any]:
        """Each key is given, and its value follows it."""
        return {
            "source": " ".join(source),
            "target": " ".join(f"{key} {source[position]}" for key, position in queries),
            "given": [2 * number for number in range(len(queries))],
            "alignment": " ".join(f"{position}-{2 * number + 1}" for number, (_, position) in enumerate(queries)),
        }
