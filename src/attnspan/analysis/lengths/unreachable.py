"""References that are longer than a hypothesis may become, so that no hypothesis can equal them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnspan.runs.finished_run import Run


@dataclass(frozen=True)
class Unreachable:
    """The references that are out of reach of some runs on one test set."""

    inside: NDArray[np.bool_]
    """[N]: which of the N references, for any of the runs."""
    needed_margin: int
    """The least ``decoding.limit.margin`` that reaches them all."""

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.inside.sum())


def unreachable(runs: Sequence[Run]) -> Unreachable | None:
    """The references out of reach of ``runs``; None where an older run does not say how its limit was set.

    A hypothesis of a source with S tokens has at most floor(ratio S) + margin tokens.
    """
    missing = [beyond for run in runs if (beyond := _beyond_limit(run)) is not None]
    if len(missing) < len(runs):
        return None
    most = np.max([tokens for tokens, _ in missing], axis=0)
    return Unreachable(most > 0, max(margin + max(0, int(tokens.max())) for tokens, margin in missing))


def _beyond_limit(run: Run) -> tuple[NDArray[np.int64], int] | None:
    """By how many tokens each reference exceeds the limit, and the limit's margin."""
    limit = run.summary.get("length_limit") or (run.config.get("decoding") or {}).get("limit") or {}
    ratio, margin = limit.get("ratio"), limit.get("margin")
    if ratio is None or margin is None:
        return None
    sources, targets = (run.records[f"{side}_length"].to_numpy() for side in ("source", "target"))
    most = np.floor(float(ratio) * sources.astype(np.float64)).astype(np.int64) + int(margin)
    return targets - most, int(margin)
