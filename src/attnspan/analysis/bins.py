"""Bins of source length: right-closed, of even width, with an edge exactly on the longest source seen in training."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnspan.errors import InputError

FEWEST = 30
"""A bin with fewer examples is merged into a neighbour."""
_ABOUT = 10
_NICE = (1, 2, 5)


@dataclass(frozen=True)
class Bins:
    """Bin b holds the sources longer than ``edges[b]`` and no longer than ``edges[b + 1]`` tokens."""

    edges: tuple[int, ...]
    notes: tuple[str, ...] = ()
    """What was done to the edges asked for, one sentence each."""

    def __len__(self) -> int:
        return len(self.edges) - 1

    @property
    def labels(self) -> list[str]:
        """The lengths in each bin, first to last, as in ``51–60``."""
        return [_label(low, high) for low, high in itertools.pairwise(self.edges)]

    def members(self, lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which examples lie in which bin: bins x examples."""
        edges = np.asarray(self.edges)
        return (lengths > edges[:-1, None]) & (lengths <= edges[1:, None])


def make_bins(lengths: NDArray[np.int64], walls: Iterable[int], asked: Sequence[int] | None = None) -> Bins:
    """Cut ``lengths`` into bins.

    Args:
        lengths: source lengths of the test set.
        walls: the longest source length that each arm saw in training. Each becomes an edge, and no bin is ever merged
            across it: a bin is either in range or beyond it.
        asked: edges to use instead of even ones; widened to take in all examples.
    """
    shortest, longest = int(lengths.min()), int(lengths.max())
    walls = sorted({wall for wall in walls if shortest <= wall < longest})
    notes = []
    if asked is None:
        edges = _even_edges(shortest, longest, walls[-1] if walls else longest)
    else:
        edges = sorted(set(asked))
        for outside, edge in ((shortest <= edges[0], 0), (longest > edges[-1], longest)):
            if outside:
                notes.append(f"The edge {edge} was added to the bins asked for, to take in every test example.")
                edges.append(edge)
        if missing := [wall for wall in walls if wall not in edges]:
            notes.append(f"The longest training length ({joined(missing)}) was added as an edge.")
    edges, merged = _merge(sorted({*edges, *walls}), lengths, walls)
    if merged:
        notes.append(f"Merged into a neighbour, for fewer than {FEWEST} examples: {joined(merged)}.")
    bins = Bins(tuple(edges), tuple(notes))
    small = [
        f"{label} ({n})" for label, n in zip(bins.labels, bins.members(lengths).sum(axis=1), strict=True) if n < FEWEST
    ]
    if small:
        note = (
            f"Fewer than {FEWEST} examples, and no neighbour on the same side of the training lengths: {joined(small)}."
        )
        bins = Bins(bins.edges, (*notes, note))
    return bins


def parse_edges(text: str) -> list[int]:
    """Read ``5,10,20``.

    Raises:
        InputError: they are not at least two ascending whole numbers from 0 on.
    """
    try:
        edges = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--bins {text}: not whole numbers separated by commas, as in 0,10,20,30") from error
    if len(edges) < 2 or edges[0] < 0 or any(low >= high for low, high in itertools.pairwise(edges)):
        raise InputError(
            f"--bins {text}: needs at least two edges from 0 on, each above the one before, as in 0,10,20,30"
        )
    return edges


def _even_edges(shortest: int, longest: int, anchor: int) -> list[int]:
    """About ten bins of a round width, with an edge on ``anchor``."""
    least = (longest - shortest + 1) / _ABOUT
    width = next(nice * 10**power for power in range(9) for nice in _NICE if nice * 10**power >= least)
    first = anchor - width * -(-(anchor - shortest + 1) // width)
    last = anchor + width * -(-(longest - anchor) // width)
    return [max(edge, 0) for edge in range(first, last + 1, width)]


def _merge(edges: list[int], lengths: NDArray[np.int64], walls: Sequence[int]) -> tuple[list[int], list[str]]:
    """Take out edges until every bin holds enough examples, or has no neighbour on its side of the walls."""
    merged = []
    while True:
        counts = Bins(tuple(edges)).members(lengths).sum(axis=1)
        for b in sorted(range(len(counts)), key=lambda b: counts[b]):
            neighbours = [n for n in (b - 1, b + 1) if 0 <= n < len(counts) and edges[max(b, n)] not in walls]
            if not counts[b] and b + 1 < len(counts):
                neighbours = [b + 1]  # holds no example that could end up on the wrong side
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
