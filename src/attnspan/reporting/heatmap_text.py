"""An attention map in a terminal.

Row t shows the weights that produced output token y_t. ``<eos>`` has no row, because it is not part of the output. A
weight of exactly 0 is left blank.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from attnspan.reporting.formatting import visible
from attnspan.runs.attention_maps import AttentionMap

Paint = Callable[[float, int], tuple[str, str]]
"""(weight, number of columns) -> (text of that many columns, style)."""

_COLOURS = (255, 195, 153, 117, 75, 33, 27, 26, 20, 18, 17)
"""Of the 256 terminal colours, from light to dark, for weights above 0, and of 0.1 ... 1."""
_FROM = (0.0, 0.05, 0.25, 0.5, 0.75)
"""The lowest weight of each shade; the first has all that are above 0."""
_SHADES, _ASCII_SHADES = "·░▒▓█", ".-+*#"
_LONGEST_LABEL = 24


def lines(heatmap: AttentionMap, console: Console) -> Iterator[Text]:
    """Draw the map as wide as the console, in colours if it has 256 of them, else in characters.

    A source that is too long for the width continues below, with all rows again.
    """
    paint, legend = painter(console)
    source = [token_label(token, console.encoding) for token in heatmap.source]
    output = [token_label(token, console.encoding) for token in heatmap.output]
    margin = max(map(cell_len, output)) + 1
    least = min(max(map(cell_len, source)), 3)  # short tokens get columns of the same width
    widths = [max(cell_len(label), least) + 1 for label in source]
    for block in _blocks(widths, console.width - margin):
        if block.start:
            yield Text()
        if len(block) < len(source):
            yield Text(f"source tokens {block.start + 1} to {block.stop} of {len(source)}")
        yield Text(" " * margin + "".join(set_cell_size(source[j], widths[j]) for j in block))
        for label, weights in zip(output, heatmap.weights, strict=True):
            cells = (paint(float(weights[j]), widths[j]) for j in block)
            yield Text.assemble(" " * (margin - 1 - cell_len(label)), f"{label} ", *cells)
    yield legend


def token_label(token: str, encoding: str) -> str:
    """A token as a console of this encoding can show it, cut if it is long."""
    label = visible(token).encode(encoding, "backslashreplace").decode(encoding)
    if cell_len(label) > _LONGEST_LABEL:
        label = set_cell_size(label, _LONGEST_LABEL - 3).rstrip() + "..."
    if any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in label):
        label = f"\u200e{label}\u200e"  # stops a right-to-left terminal from swapping columns
    return label


def _blocks(widths: Sequence[int], room: int) -> Iterator[range]:
    """Ranges of columns that fit next to each other, at least one column each."""
    first, taken = 0, 0
    for column, width in enumerate(widths):
        if column > first and taken + width > room:
            yield range(first, column)
            first, taken = column, 0
        taken += width
    yield range(first, len(widths))


def painter(console: Console) -> tuple[Paint, Text]:
    """How cells are painted, and the legend."""
    if console.is_terminal and not console.no_color and console.color_system in ("256", "truecolor"):
        scale = [(" ", f"on color({colour})") for colour in _COLOURS]
        return _in_colours, Text.assemble("weights  0 ", *((2 * cell, style) for cell, style in scale), " 1")
    try:
        _SHADES.encode(console.encoding)
        shades = _SHADES
    except UnicodeEncodeError:
        shades = _ASCII_SHADES

    def in_characters(weight: float, width: int) -> tuple[str, str]:
        if weight == 0:
            return " " * width, ""
        level = int(np.searchsorted(_FROM, weight, side="right")) - 1
        return (shades[level] * (width if level else 1)).ljust(width), ""

    steps = "  ".join(f"{shade} from {least:g}" for shade, least in zip(shades[1:], _FROM[1:], strict=True))
    return in_characters, Text(f"weights  {shades[0]} above 0  {steps}")


def _in_colours(weight: float, width: int) -> tuple[str, str]:
    return " " * width, f"on color({_COLOURS[round(weight * (len(_COLOURS) - 1))]})" if weight else ""
