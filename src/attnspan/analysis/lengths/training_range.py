"""In range or extrapolation: whether training had a source and a target as long as those of a test example."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnspan.analysis.lengths.words import plural
from attnspan.data.corpora.base import SIDES as SIDES_OF_PAIRS
from attnspan.runs.finished_run import Run

IN_RANGE = "in range"
"""Examples whose source and target are no longer than the longest source and the longest target seen in training."""
EXTRAPOLATION = "extrapolation"
"""Examples whose source or target is longer than any seen in training."""
SIDES = (IN_RANGE, EXTRAPOLATION)


@dataclass(frozen=True)
class TrainingRange:
    """The longest source and the longest target in training, in tokens."""

    source: int
    target: int | None
    """None where an older run does not record it. Then the target decides nothing."""

    @classmethod
    def of(cls, runs: Sequence[Run]) -> TrainingRange:
        """What all of ``runs`` saw."""
        targets = [run.training_target_lengths for run in runs]
        known = [lengths[1] for lengths in targets if lengths is not None]
        return cls(min(run.training_lengths[1] for run in runs), min(known) if len(known) == len(targets) else None)

    def longest(self, side: str) -> int | None:
        """The longest of ``source`` or ``target``."""
        return {"source": self.source, "target": self.target}[side]

    def exceeded_by(self, records: pd.DataFrame) -> NDArray[np.bool_]:
        """Which of N examples [N] are extrapolation."""
        beyond = np.zeros(len(records), dtype=bool)
        for side in SIDES_OF_PAIRS:
            longest = self.longest(side)
            if longest is not None:
                beyond |= records[f"{side}_length"].to_numpy() > longest
        return beyond

    def __str__(self) -> str:
        """In words, as in ``9 source and 22 target tokens``."""
        source = plural(self.source, "source token")
        if self.target is None:
            return f"{self.source} {source}"
        return f"{self.source} source and {self.target} {plural(self.target, 'target token')}"


def distinct(ranges: Iterable[TrainingRange]) -> list[TrainingRange]:
    """Each range once, the shortest first."""
    return sorted(set(ranges), key=lambda one: (one.source, one.target or 0))
