"""Which length a study goes by: that of the source or of the target, in tokens or as a multiple of training's longest.

Both lengths of every test example are in its record. The target's length is that of the reference, never that of the
hypothesis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnspan.analysis.lengths.training_range import TrainingRange
from attnspan.analysis.lengths.words import plural
from attnspan.data.corpora.base import LENGTHS, SIDES
from attnspan.errors import InputError, nearest

FEWEST = 30
"""A bin with fewer examples is merged into a neighbour, and no side is chosen for the sake of fewer."""


@dataclass(frozen=True)
class LengthAxis:
    """One of ``source``, ``target``, ``source-multiple`` and ``target-multiple``."""

    name: str
    longest: int | None = None
    """Of a multiple: the length of which it is one, the longest on that side in training, in tokens."""

    @property
    def side(self) -> str:
        """``source`` or ``target``."""
        return self.name.partition("-")[0]

    @property
    def is_multiple(self) -> bool:
        """Whether lengths are multiples of the longest in training, and not numbers of tokens."""
        return self.name != self.side

    def of(self, records: pd.DataFrame) -> NDArray[np.int64] | NDArray[np.float64]:
        """The length [N] of each of N records."""
        return self.in_units(records[f"{self.side}_length"].to_numpy())

    def in_units(self, tokens: NDArray[np.int64]) -> NDArray[np.int64] | NDArray[np.float64]:
        """Numbers of tokens as lengths on this axis."""
        return tokens if self.longest is None else tokens / self.longest

    @property
    def key(self) -> str:
        """In names on W&B: ``source_length``, ``source_length_multiple``."""
        return f"{self.side}_length{'_multiple' if self.is_multiple else ''}"

    @property
    def noun(self) -> str:
        """In captions and sentences."""
        return f"{self.side} length{' as a multiple of the longest in training' if self.is_multiple else ''}"

    @property
    def unit(self) -> str:
        """After a number, and above a column of numbers."""
        return f"× the longest {self.side} in training" if self.is_multiple else f"{self.side} tokens"

    @property
    def title(self) -> str:
        """Of the axis of a plot."""
        unit = f"× {self.longest} tokens, the longest in training" if self.is_multiple else "tokens"
        return f"{self.side} length ({unit})"

    @property
    def per(self) -> int:
        """Slopes are per this much length: 10 tokens, or once the longest in training."""
        return 1 if self.is_multiple else 10

    @property
    def step(self) -> float:
        """A difference of lengths that does not matter: where an interval of a span is tested."""
        return 0.002 if self.is_multiple else 0.1

    def text(self, length: float) -> str:
        """A single length, as in ``19`` and ``1.32``."""
        return f"{length:.2f}" if self.is_multiple else f"{length:.0f}"

    def in_words(self, length: str) -> str:
        """A length, or a range of lengths, with its unit, as in ``51–60 source tokens`` and ``1 source token``."""
        return f"{length.rstrip('×')} {self.unit if self.is_multiple else plural(length, f'{self.side} token')}"

    def label(self, above: float, up_to: float) -> str:
        """The lengths above ``above`` and up to ``up_to``, as in ``51–60`` and ``1–1.5×``."""
        if self.is_multiple:
            return f"{above:g}–{up_to:g}×"
        return f"{above + 1:g}–{up_to:g}" if up_to > above + 1 else f"{up_to:g}"

    def examples(self, label: str) -> str:
        """The examples of a bin, as in ``sources of 51–60 tokens``."""
        if self.is_multiple:
            return f"{self.side}s of {label.rstrip('×')} times the longest in training"
        return f"{self.side}s of {label} {plural(label, 'token')}"


def choose_axis(
    asked: str | None, configured: Sequence[str | None], ranges: Sequence[TrainingRange], records: pd.DataFrame
) -> LengthAxis:
    """The axis of a study.

    Args:
        asked: by the user; None for what the data set is configured to.
        configured: ``data.length`` of every run. Where it is null, or differs, the axis is that of the side on which
            the test goes beyond training: the source, if both sides do, or neither.
        ranges: what the arms have seen in training.
        records: of the test.

    Raises:
        InputError: there is no such length; it is a multiple, and the longest in training is not known, or is not the
            same for all arms.
    """
    same = configured[0] if len(set(configured)) == 1 else None
    for key, value in (("--length ", asked), ("data.length=", same)):
        if value is not None and value not in LENGTHS:
            raise InputError(f"{key}{value}: there is no such length; {nearest(value, LENGTHS)}")
    name = asked or same or side_beyond_training(ranges, *(records[f"{side}_length"].to_numpy() for side in SIDES))
    axis = LengthAxis(name)
    if not axis.is_multiple:
        return axis
    longest = {one.longest(axis.side) for one in ranges}
    known = {one for one in longest if one is not None}
    remedy = f"--length {axis.side} counts tokens"
    if None in longest:
        raise InputError(
            f"--length {name}: the runs do not say how long the longest {axis.side} in training was; {remedy}"
        )
    if len(longest) > 1:
        several = ", ".join(map(str, sorted(known)))
        raise InputError(
            f"--length {name}: the longest {axis.side} in training differs between arms ({several}); {remedy}"
        )
    return LengthAxis(name, known.pop())


def side_beyond_training(
    ranges: Sequence[TrainingRange], sources: NDArray[np.int64], targets: NDArray[np.int64]
) -> str:
    """The side on which ``FEWEST`` test examples or more are longer than any in training; the source where both are."""
    for side, lengths in zip(SIDES, (sources, targets), strict=True):
        longest = [known for one in ranges if (known := one.longest(side)) is not None]
        if longest and int((lengths > min(longest)).sum()) >= FEWEST:
            return side
    return SIDES[0]
