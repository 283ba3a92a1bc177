"""Bins of source length: right-closed, of even width, with an edge exactly on the longest source seen in training.

A region is a bin, or all bins on one side of the longest training length.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnspan.errors import InputError

IN_RANGE = "in range"
"""Source lengths up to the longest seen in training."""
EXTRAPOLATION = "extrapolation"
"""Source lengths longer than any seen in training."""
SIDES = (IN_RANGE, EXTRAPOLATION)

FEWEST = 30
"""A bin with fewer examples is merged into a neighbour."""
_DEFAULT_BINS = 10
_ROUND = (1, 2, 5)
"""The first digits of a round bin width."""


@dataclass(frozen=True)
class Region:
    """The sources longer than ``above`` and no longer than ``up_to``; ``total`` if they are a whole side."""

    label: str
    side: str
    """``in range`` or ``extrapolation``."""
    total: bool
    above: int
    up_to: int
    mean_length: float
    examples: int


def members(regions: Sequence[Region], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which examples lie in which region: regions x examples."""
    return np.stack([(lengths > region.above) & (lengths <= region.up_to) for region in regions])


@dataclass(frozen=True)
class Bins:
    """Bin b holds the sources longer than ``edges[b]`` and no longer than ``edges[b + 1]`` tokens."""

    edges: tuple[int, ...]
    notes: tuple[str, ...] = ()
    """How the bins differ from what was requested, one sentence each."""

    def __len__(self) -> int:
        return len(self.edges) - 1

    @property
    def labels(self) -> list[str]:
        """The range of lengths of each bin, as in ``51–60``."""
        return [_label(low, high) for low, high in itertools.pairwise(self.edges)]

    def members(self, lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which examples lie in which bin: bins x examples."""
        edges = np.asarray(self.edges)
        return (lengths > edges[:-1, None]) & (lengths <= edges[1:, None])

    def regions(self, lengths: NDArray[np.int64], training_max: int) -> list[Region]:
        """The bins, then the two sides of ``training_max`` as wholes (those with examples)."""
        described = []
        for (low, high), label in zip(itertools.pairwise(self.edges), self.labels, strict=True):
            longest = min(high, int(lengths.max()))  # the last edge may lie beyond all sources
            described.append((label, IN_RANGE if longest <= training_max else EXTRAPOLATION, False, low, high))
        for side in SIDES:
            if of_side := [row for row in described if row[1] == side]:
                described.append((side, side, True, of_side[0][3], of_side[-1][4]))
        inside = [lengths[(lengths > above) & (lengths <= up_to)] for *_, above, up_to in described]
        return [Region(*row, float(some.mean()), len(some)) for row, some in zip(described, inside, strict=True)]


def make_bins(lengths: NDArray[np.int64], boundaries: Iterable[int], edges: Sequence[int] | None = None) -> Bins:
    """Cut ``lengths`` into bins.

    Args:
        lengths: source lengths of the test set.
        boundaries: of the training range: the longest source length that each arm saw in training. Each becomes an
            edge, and no bins are merged across it: a bin is either in range or extrapolation.
        edges: edges to use instead of even ones; widened to cover all examples.
    """
    shortest, longest = int(lengths.min()), int(lengths.max())
    boundaries = sorted({boundary for boundary in boundaries if shortest <= boundary < longest})
    notes = []
    if edges is None:
        chosen = _even_edges(shortest, longest, boundaries[-1] if boundaries else longest)
    else:
        chosen = sorted(set(edges))
        for outside, edge in ((shortest <= chosen[0], 0), (longest > chosen[-1], longest)):
            if outside:
                notes.append(f"The edge {edge} was added to the requested bins, so that they cover every test example.")
                chosen.append(edge)
        if missing := [boundary for boundary in boundaries if boundary not in chosen]:
            notes.append(f"The longest training length ({joined(missing)}) was added as an edge.")
    chosen, merged = _merge(sorted({*chosen, *boundaries}), lengths, boundaries)
    if merged:
        notes.append(f"Bins with fewer than {FEWEST} examples were merged into a neighbour: {joined(merged)}.")
    bins = Bins(tuple(chosen))
    counts = bins.members(lengths).sum(axis=1)
    if small := [f"{label} ({n})" for label, n in zip(bins.labels, counts, strict=True) if n < FEWEST]:
        notes.append(
            f"Bins with fewer than {FEWEST} examples that have no neighbour on the same side of the training lengths: "
            f"{joined(small)}."
        )
    return Bins(bins.edges, tuple(notes))


def parse_edges(text: str) -> list[int]:
    """Parse ``5,10,20``.

    Raises:
        InputError: it is not at least two ascending integers, none of them negative.
    """
    try:
        edges = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--bins {text}: not integers separated by commas, as in 0,10,20,30") from error
    if len(edges) < 2 or edges[0] < 0 or any(low >= high for low, high in itertools.pairwise(edges)):
        raise InputError(f"--bins {text}: needs at least two edges in ascending order, none below 0, as in 0,10,20,30")
    return edges


def _even_edges(shortest: int, longest: int, anchor: int) -> list[int]:
    """About ten bins of a round width, with an edge on ``anchor``."""
    least = (longest - shortest + 1) / _DEFAULT_BINS
    width = next(first * 10**power for power in range(9) for first in _ROUND if first * 10**power >= least)
    start = anchor - width * -(-(anchor - shortest + 1) // width)
    last = anchor + width * -(-(longest - anchor) // width)
    return [max(edge, 0) for edge in range(start, last + 1, width)]


def _merge(edges: list[int], lengths: NDArray[np.int64], boundaries: Sequence[int]) -> tuple[list[int], list[str]]:
    """Remove edges until every bin has enough examples, or no neighbour on its side of the boundaries.

    Also returns the bins that were merged, with their numbers of examples.
    """
    merged = []
    while True:
        counts = Bins(tuple(edges)).members(lengths).sum(axis=1)
        for b in sorted(range(len(counts)), key=lambda b: counts[b]):
            neighbours = [n for n in (b - 1, b + 1) if 0 <= n < len(counts) and edges[max(b, n)] not in boundaries]
            if not counts[b] and b + 1 < len(counts):
                neighbours = [b + 1]  # it has no example that could end up on the wrong side
            if counts[b] < FEWEST and neighbours:
                nearest = min(neighbours, key=lambda n: counts[n])
                if counts[b]:
                    merged.append(f"{_label(edges[b], edges[b + 1])} ({counts[b]})")
                edges = [edge for edge in edges if edge != edges[max(b, nearest)]]
                break
        else:
            return edges, merged


def _label(low: int, high: int) -> str:
    return f"{low + 1}–{high}" if high > low + 1 else f"{high}"


def joined(words: Iterable[object]) -> str:
    """``a, b and c``."""
    *most, last = map(str, words)
    return f"{', '.join(most)} and {last}" if most else last
