"""An attention map as a figure: source tokens along the top, output tokens downwards (Bahdanau et al. 2015, Fig. 3)."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image
from rich.cells import cell_len

from attnspan.files import write_atomically
from attnspan.reporting.pictures.figure import draw_picture
from attnspan.reporting.pictures.fonts import drawable
from attnspan.reporting.plots import INK, RC
from attnspan.runs.attention_maps import AttentionMap

_RC = {**RC, "axes.grid": False, "text.parse_math": False}
_BLUES = LinearSegmentedColormap.from_list("attention", ["#f3f7fb", "#c6dbef", "#6baed6", "#2171b5", "#08306b"])
"""ColorBrewer's Blues, from nearly white: sequential in print and for colour-blind readers too."""
_COLOURS = _BLUES.with_extremes(bad="#ffffff")  # of exactly 0
_CELL = (0.11, 0.28)
"""The least and the greatest size of a cell, in inches."""
_MAP = 9.0
"""The size of a map in inches, as long as its cells are not smaller than ``_CELL`` allows."""
_POINTS = 72
_SCREEN = 110
"""Dots per inch on a page, at which the tokens of a 100 x 100 map are just legible."""
_MOST_PIXELS = 12_000
"""The longer side of a PNG, in pixels, at most."""
_MOST_PATHS = 5_000
"""An SVG has at most so many cells as paths; more are rasterised."""


def draw(heatmap: AttentionMap, *, title: Sequence[str]) -> Figure:
    """Draw the weights from 0 (white) to 1 in cells of one size, with each token at the middle of its row or column.

    No weight above 0 is white. A line may break between two parts of the ``title``.

    Over an image, the image is drawn once for each output token.
    """
    if heatmap.picture is not None:
        return draw_picture(heatmap, title=title)
    T, S = heatmap.weights.shape
    cell = float(np.clip(_MAP / max(T, S), *_CELL))
    width, height, around = S * cell, T * cell, 1.0
    families, (source, output) = drawable(heatmap.source, heatmap.output)
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(width + 2 * around, height + 2 * around))

        def place(left: float, top: float, wide: float, high: float) -> tuple[float, float, float, float]:
            """Inches from the map's upper left corner, as fractions of the figure."""
            w, h = figure.get_size_inches()
            return (around + left) / w, (around + height - top - high) / h, wide / w, high / h

        axes = figure.add_axes(place(0, 0, width, height))
        mesh = axes.pcolormesh(
            np.arange(S + 1) - 0.5,  # edges: token j is at j, in the middle of its column
            np.arange(T + 1) - 0.5,
            np.ma.masked_equal(heatmap.weights, 0), cmap=_COLOURS, norm=Normalize(0, 1),
            edgecolors="#e8e8e8", linewidth=0.3, rasterized=T * S > _MOST_PATHS,
        )  # fmt: skip
        axes.invert_yaxis()
        axes.spines[:].set(visible=True, color=INK, linewidth=0.6)
        size = min(9.0, 0.68 * cell * _POINTS)
        upright = max(map(cell_len, source)) * 0.62 * size < 0.9 * cell * _POINTS
        axes.set_xticks(range(S), source, rotation=0 if upright else 90, fontsize=size, fontfamily=families)
        axes.set_yticks(range(T), output, fontsize=size, fontfamily=families)
        axes.tick_params(length=0, pad=2.5, top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("source tokens", labelpad=5)
        axes.set_ylabel("output tokens", labelpad=5)
        words = ", ".join(part.replace(" ", "\u00a0") for part in title)
        axes.set_title(textwrap.fill(words, max(34, round(width / 0.075))), loc="left", fontsize=9, pad=8)

        scale = figure.add_axes(place(width + 0.2, 0, 0.12, float(np.clip(height, 1.2, 2.5))))
        figure.colorbar(mesh, cax=scale, label="attention weight", ticks=[0, 0.5, 1])
        scale.tick_params(length=2, labelsize=8)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write the figure, completely or not at all, in the format that the file's name ends in.

    Raises:
        InputError: the file cannot be written.
    """
    dpi = min(300.0, _MOST_PIXELS / max(figure.get_size_inches()))
    write_atomically(path, _content(figure, path.suffix.removeprefix("."), dpi).getbuffer())


def small_png(figure: Figure) -> tuple[bytes, int, int]:
    """The figure for a screen, with few colours to save bytes, and its width and height in pixels."""
    image = Image.open(_content(figure, "png", _SCREEN)).convert("RGB").quantize(64)
    content = io.BytesIO()
    image.save(content, "png", optimize=True)
    return content.getvalue(), *image.size


def _content(figure: Figure, kind: str, dpi: float) -> io.BytesIO:
    metadata = {"Date": None} if kind == "svg" else {}
    content = io.BytesIO()
    with mpl.rc_context(_RC):
        figure.savefig(
            content, format=kind, dpi=dpi, metadata=metadata, facecolor="white", bbox_inches="tight", pad_inches=0.1
        )
    return content
