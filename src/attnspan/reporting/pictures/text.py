"""Attention over an image in a terminal: for each output token the grid of regions."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from attnspan.reporting.heatmap_text import painter, token_label
from attnspan.runs.attention_maps import AttentionMap


def picture_lines(heatmap: AttentionMap, console: Console) -> Iterator[Text]:
    """Each token with its largest weight, below it the rows of regions, shaded in proportion to that weight.

    A grid that is wider than the console is cut at its right, and the line above all says so.
    """
    assert heatmap.picture is not None
    paint, legend = painter(console)
    (rows, columns), (high, wide) = heatmap.picture.grid, heatmap.picture.region_size
    shown = min(columns, console.width - 3)
    cut = "" if shown == columns else f"; the first {shown} columns are shown"
    yield Text(f"regions of {high} x {wide} pixels in {_count(rows, 'row')} and {_count(columns, 'column')}{cut}")
    for token, weights in zip(heatmap.output, heatmap.weights, strict=True):
        best = int(weights.argmax())
        largest = float(weights[best])
        where = f"row {best // columns + 1}, column {best % columns + 1}"
        yield Text(f"{token_label(token, console.encoding)}  {largest:.2f} at {where}")
        for row in weights.reshape(rows, columns):
            yield Text.assemble("  ", *(paint(float(weight) / (largest or 1.0), 1) for weight in row[:shown]))
    yield Text.assemble(legend, " (times the largest weight of each token)")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
