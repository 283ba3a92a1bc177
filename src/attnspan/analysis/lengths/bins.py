"""Bins of length: right-closed, of even width, with an edge exactly on the longest length seen in training."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnspan.analysis.lengths.axis import FEWEST, LengthAxis
from attnspan.errors import InputError

Lengths = NDArray[np.int64] | NDArray[np.float64]

_DEFAULT_BINS = 10
_ROUND = (1, 2, 5)
"""The first digits of a round bin width."""
_LEAST_MULTIPLE = 0.5
"""The least bin width where lengths are multiples of the longest in training."""


@dataclass(frozen=True)
class Bins:
    """Bin b holds the examples longer than ``edges[b]`` and no longer than ``edges[b + 1]``, in units of ``axis``."""

    axis: LengthAxis
    edges: tuple[float, ...]
    notes: tuple[str, ...] = ()
    """How the bins differ from what was requested, one sentence each."""

    def __len__(self) -> int:
        return len(self.edges) - 1

    @property
    def labels(self) -> list[str]:
        """The range of lengths of each bin, as in ``51–60``."""
        return [self.axis.label(low, high) for low, high in itertools.pairwise(self.edges)]

    def members(self, lengths: Lengths) -> NDArray[np.bool_]:
        """Which examples lie in which bin: bins x examples."""
        edges = np.asarray(self.edges)
        return (lengths > edges[:-1, None]) & (lengths <= edges[1:, None])


def make_bins(
    axis: LengthAxis, lengths: Lengths, boundaries: Iterable[float], edges: Sequence[float] | None = None
) -> Bins:
    """Cut ``lengths`` into bins. A bin between others may have no example, but neither the first nor the last.

    Even bins have an edge on the longest length in training, whether it was tested or not, so that reports on other
    examples of the same runs name their bins alike.

    Args:
        axis: what the lengths are.
        lengths: of the test set.
        boundaries: of the training range: the longest length that each arm saw in training. Each that lies within the
            lengths becomes an edge, and no bins are merged across it.
        edges: edges to use instead of even ones; widened to cover all examples.

    Raises:
        InputError: an edge of lengths in tokens is not a whole number.
    """
    shortest, longest = lengths.min().item(), lengths.max().item()
    trained = sorted({*boundaries})
    boundaries = [boundary for boundary in trained if shortest <= boundary < longest]
    notes = []
    if edges is None:
        anchors = boundaries or ([1] if axis.is_multiple else trained) or [longest]
        chosen = _even_edges(axis, shortest, longest, anchors[-1])
    else:
        chosen = _whole(axis, edges)
        for outside, edge in ((shortest <= chosen[0], 0), (longest > chosen[-1], longest)):
            if outside:
                notes.append(
                    f"The edge {edge:g} was added to the requested bins, so that they cover every test example."
                )
                chosen.append(edge)
        if missing := [boundary for boundary in boundaries if boundary not in chosen]:
            notes.append(
                f"The longest {axis.side} in training ({joined(f'{one:g}' for one in missing)}) was added as an edge."
            )
    bins = _with_examples_at_both_ends(Bins(axis, tuple(sorted({*chosen, *boundaries}))), lengths)
    bins, merged = merge_small(bins, lengths, boundaries)
    if merged:
        notes.append(f"Bins with fewer than {FEWEST} examples were merged into a neighbour: {joined(merged)}.")
    counts = bins.members(lengths).sum(axis=1)
    if small := [f"{label} ({n})" for label, n in zip(bins.labels, counts, strict=True) if 0 < n < FEWEST]:
        notes.append(
            f"Bins with fewer than {FEWEST} examples that have no neighbour on the same side of the training lengths: "
            f"{joined(small)}."
        )
    return Bins(axis, bins.edges, tuple(notes))


def _with_examples_at_both_ends(bins: Bins, lengths: Lengths) -> Bins:
    """Without the first and last bins that hold none of ``lengths``."""
    first, last = np.flatnonzero(bins.members(lengths).any(axis=1))[[0, -1]]
    return Bins(bins.axis, bins.edges[first : last + 2])


def _whole(axis: LengthAxis, edges: Sequence[float]) -> list[float]:
    """The requested edges in order."""
    if not axis.is_multiple and (fractions := [edge for edge in edges if edge != int(edge)]):
        raise InputError(f"--bins: {fractions[0]:g} is not a whole number, and lengths are in {axis.unit}")
    return sorted(set(edges) if axis.is_multiple else {int(edge) for edge in edges})


def parse_edges(text: str) -> list[float]:
    """Parse ``5,10,20``, or ``0,0.5,1`` for multiples.

    Raises:
        InputError: it is not at least two ascending numbers, none of them negative.
    """
    try:
        edges = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--bins {text}: not numbers separated by commas, as in 0,10,20,30") from error
    ascending = all(low < high for low, high in itertools.pairwise(edges))  # not with a nan
    if len(edges) < 2 or not edges[0] >= 0 or not ascending or edges[-1] == float("inf"):
        raise InputError(f"--bins {text}: needs at least two edges in ascending order, none below 0, as in 0,10,20,30")
    return edges


def _even_edges(axis: LengthAxis, shortest: float, longest: float, anchor: float) -> list[float]:
    """About ten bins of a round width, with an edge on ``anchor``."""
    least = (longest - shortest + (0 if axis.is_multiple else 1)) / _DEFAULT_BINS
    widths = [first * 10**power for power in range(9) for first in _ROUND]
    width: float = next(
        width for width in ((_LEAST_MULTIPLE,) if axis.is_multiple else ()) + (*widths,) if width >= least
    )
    start = anchor - width * ((anchor - shortest) // width + 1)  # below the shortest, which its bin must hold
    last = anchor + width * -(-(longest - anchor) // width)
    return [
        max(anchor + width * step, 0)
        for step in range(round((start - anchor) / width), round((last - anchor) / width) + 1)
    ]


def merge_small(bins: Bins, lengths: Lengths, boundaries: Sequence[float] = ()) -> tuple[Bins, list[str]]:
    """Remove edges until every bin has enough examples or none, or no neighbour on its side of the boundaries.

    An empty bin stays: a gap between the lengths tested must not lend its name to the bin next to it. Also returns the
    bins that were merged, with their numbers of examples.
    """
    merged, edges = [], [*bins.edges]
    while True:
        now = Bins(bins.axis, tuple(edges))
        counts = now.members(lengths).sum(axis=1)
        for b in sorted(range(len(counts)), key=lambda b: counts[b]):
            between = [edges[n + 1 : b + 1] if n < b else edges[b + 1 : n + 1] for n in _neighbours(counts, b)]
            between = [some for some in between if not {*some} & {*boundaries}]
            if 0 < counts[b] < FEWEST and between:
                merged.append(f"{now.labels[b]} ({counts[b]})")
                edges = [edge for edge in edges if edge not in between[0]]
                break
        else:
            return now, merged


def _neighbours(counts: NDArray[np.int64], b: int) -> list[int]:
    """The next bins below and above bin ``b`` that have examples: the nearer one first, then that with fewer."""
    below, above = np.flatnonzero(counts[:b])[-1:], b + 1 + np.flatnonzero(counts[b + 1 :])[:1]
    return sorted([*below.tolist(), *above.tolist()], key=lambda n: (abs(n - b), counts[n]))


def joined(words: Iterable[object]) -> str:
    """``a, b and c``; empty if there are none."""
    *most, last = [*map(str, words)] or [""]
    return f"{', '.join(most)} and {last}" if most else last
