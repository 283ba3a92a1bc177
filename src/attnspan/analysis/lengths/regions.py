"""Regions: the test examples of a length bin on one side of what training saw, and each side as a whole.

In range and extrapolation are judged on source and target, bins are of one length. So a bin may have examples on both
sides, as where sources are short and their targets longer than any in training. Then it is two regions. Examples that
are extrapolation for the same arms are one part of the test set, which has bins of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnspan.analysis.lengths.axis import FEWEST, LengthAxis
from attnspan.analysis.lengths.bins import Bins, Lengths, joined, make_bins, merge_small
from attnspan.analysis.lengths.training_range import EXTRAPOLATION, IN_RANGE, SIDES, TrainingRange


@dataclass(frozen=True)
class Region:
    """Some of the N test examples: those of one bin on one side, or a whole side (``total``)."""

    axis: LengthAxis
    label: str
    side: str
    """``in range`` or ``extrapolation``; empty for a bin with the examples of both."""
    total: bool
    above: float
    up_to: float
    mean_length: float
    examples: int
    inside: NDArray[np.bool_] = field(repr=False, compare=False)
    """[N]: which examples they are."""

    @property
    def in_words(self) -> str:
        """As in ``51–60 source tokens``."""
        return self.axis.in_words(self.label)


def members(regions: Iterable[Region]) -> NDArray[np.bool_]:
    """Which examples lie in which region: regions x examples."""
    return np.stack([region.inside for region in regions])


@dataclass(frozen=True)
class Part:
    """The examples that exceed the same training ranges, in bins of their own."""

    exceeded: frozenset[TrainingRange]
    bins: Bins
    inside: NDArray[np.bool_]

    def side(self, ranges: Iterable[TrainingRange]) -> str:
        """Extrapolation where one of ``ranges`` is exceeded."""
        return IN_RANGE if self.exceeded.isdisjoint(ranges) else EXTRAPOLATION


@dataclass(frozen=True)
class Partition:
    """The test examples in bins of length, and in parts by what training saw."""

    bins: Bins
    """Of all examples, with an edge on the longest length that each arm saw in training."""
    lengths: Lengths
    """[N]: of every example, in units of ``bins.axis``."""
    parts: tuple[Part, ...]
    """Those within the range of more arms first."""
    notes: tuple[str, ...]
    """How the bins differ from what was requested, one sentence each."""

    @property
    def axis(self) -> LengthAxis:
        """What the lengths are."""
        return self.bins.axis

    @cached_property
    def whole_bins(self) -> list[Region]:
        """Every bin that has any examples, with all of them, the shortest first."""
        return self._in_bins(self.bins, np.ones(len(self.lengths), dtype=bool), "")

    def in_part(self, part: Part, side: str) -> list[Region]:
        """The bins of a part, the shortest first."""
        return self._in_bins(part.bins, part.inside, side)

    def regions(self, *ranges: TrainingRange) -> list[Region]:
        """The bins in range of all of ``ranges``, then the others, then each side as a whole (if it has examples)."""
        bins, totals = list[Region](), list[Region]()
        for side in SIDES:
            parts = [part for part in self.parts if part.side(ranges) == side]
            of_side = [region for part in parts for region in self.in_part(part, side)]
            if of_side:
                bins += sorted(of_side, key=lambda region: region.mean_length)
                inside = np.any([part.inside for part in parts], axis=0)
                above, up_to = min(one.above for one in of_side), max(one.up_to for one in of_side)
                totals.append(self._region(side, side, above, up_to, inside, total=True))
        return [*bins, *totals]

    def _in_bins(self, bins: Bins, inside: NDArray[np.bool_], side: str) -> list[Region]:
        each = zip(bins.labels, itertools.pairwise(bins.edges), bins.members(self.lengths), strict=True)
        cut = ((label, edges, inside & in_bin) for label, edges, in_bin in each)
        return [self._region(label, side, *edges, chosen) for label, edges, chosen in cut if chosen.any()]

    def _region(
        self, label: str, side: str, above: float, up_to: float, inside: NDArray[np.bool_], *, total: bool = False
    ) -> Region:
        mean = float(self.lengths[inside].mean())
        return Region(self.axis, label, side, total, above, up_to, mean, int(inside.sum()), inside)


def partition(
    axis: LengthAxis,
    records: pd.DataFrame,
    ranges: Sequence[TrainingRange],
    edges: Sequence[float] | None = None,
) -> Partition:
    """Cut the test set into parts and bins.

    Args:
        axis: the length that bins are of.
        records: of one run; all runs have the same examples.
        ranges: what each arm has seen in training.
        edges: of the bins; by default even ones.

    Raises:
        InputError: an edge of lengths in tokens is not a whole number.
    """
    lengths = axis.of(records)
    known = [longest for one in ranges if (longest := one.longest(axis.side)) is not None]
    bins = make_bins(axis, lengths, axis.in_units(np.array(sorted(set(known)))).tolist(), edges)
    exceeded = {one: one.exceeded_by(records) for one in dict.fromkeys(ranges)}
    codes = np.stack([*exceeded.values()], axis=1)  # [N, ranges]
    parts, notes = list[Part](), [*bins.notes]
    for code in sorted({tuple(row) for row in codes.tolist()}, key=lambda code: (sum(code), code)):
        inside = (codes == np.array(code)).all(axis=1)
        of_part, more = _bins_of_part(bins, lengths, inside)
        parts.append(
            Part(frozenset(one for one, beyond in zip(exceeded, code, strict=True) if beyond), of_part, inside)
        )
        notes += more
    return Partition(bins, lengths, tuple(parts), tuple(notes))


def _bins_of_part(bins: Bins, lengths: Lengths, inside: NDArray[np.bool_]) -> tuple[Bins, list[str]]:
    """The bins of all examples, without empty ones at the ends and with small ones merged; what a reader must know."""
    of_part, counts = lengths[inside], bins.members(lengths[inside]).sum(axis=1)
    first, last = np.flatnonzero(counts)[[0, -1]]
    own, merged = merge_small(Bins(bins.axis, bins.edges[first : last + 2]), of_part)
    notes = []
    if merged:
        notes.append(
            f"Bins with fewer than {FEWEST} examples on one side of the training lengths were merged into a neighbour "
            f"on that side: {joined(merged)}."
        )
    if len(own) == 1 and len(of_part) < min(FEWEST, int(bins.members(lengths)[first].sum())):
        notes.append(f"The bin {own.labels[0]} has only {len(of_part)} examples on one side of the training lengths.")
    return own, notes
