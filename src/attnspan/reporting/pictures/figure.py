"""Attention over an image as a figure: the image once for each output token, with the attended regions coloured.

As in Xu et al. (2015, figure 3): the image is pale, and a region is the more red the larger its weight.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attnspan.reporting.pictures.fonts import drawable
from attnspan.reporting.plots import INK, RC
from attnspan.runs.attention_maps import AttentionMap, Picture

_RC = {**RC, "axes.grid": False, "text.parse_math": False}
_COLOURS = LinearSegmentedColormap.from_list("regions", ["#ffffff", "#fee0d2", "#fc9272", "#de2d26", "#67000d"])
"""ColorBrewer's Reds, from pure white."""
_WIDTH = 9.0
"""Of all panels together, in inches."""
_HIGHEST, _NARROWEST, _HEIGHT = 1.6, 1.1, 0.3
"""Of a panel, in inches: the most of its height, and the least of its width and height."""
_GAP, _LABEL = 0.12, 0.22
"""Inches between panels, and above each for its token."""
_PALE = 0.45
"""How much of the image's contrast is left below the colours."""


def draw_picture(heatmap: AttentionMap, *, title: Sequence[str]) -> Figure:
    """Draw one panel for each output token, all on one scale from 0 to the largest weight of the map.

    Raises:
        ValueError: the map is not over an image.
    """
    if heatmap.picture is None:
        raise ValueError("the map is not over an image")
    height, width = heatmap.picture.pixels.shape[1:]
    panel = max(_NARROWEST, min(_WIDTH, _HIGHEST * width / height))
    high = max(_HEIGHT, panel * height / width)
    columns = max(1, min(len(heatmap.output), int((_WIDTH + _GAP) / (panel + _GAP))))
    rows, left, top = -(-len(heatmap.output) // columns), 0.15, 0.6
    total = (left + columns * (panel + _GAP) + 0.9, top + rows * (high + _LABEL + _GAP) + 0.2)
    families, (labels,) = drawable(heatmap.output)
    scale = Normalize(0, float(heatmap.weights.max()) or 1.0)
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(total[0], max(total[1], 1.9)))
        wide, tall = figure.get_size_inches()
        for t, label in enumerate(labels):
            row, column = divmod(t, columns)
            x, y = left + column * (panel + _GAP), top + row * (high + _LABEL + _GAP) + _LABEL
            axes = figure.add_axes((x / wide, (tall - y - high) / tall, panel / wide, high / tall))
            axes.imshow(coloured(heatmap.picture, heatmap.weights[t], scale), aspect="auto", interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set(visible=True, color=INK, linewidth=0.4)
            axes.set_title(label, fontsize=8, pad=2, loc="left", fontfamily=families)
        words = ", ".join(part.replace(" ", "\u00a0") for part in title)
        lines = textwrap.fill(words, max(34, round(wide / 0.085)))
        figure.text(left / wide, 1 - 0.08 / tall, lines, fontsize=9, va="top")
        bar = figure.add_axes(((wide - 0.75) / wide, (tall - top - _LABEL - 1.1) / tall, 0.12 / wide, 1.1 / tall))
        figure.colorbar(ScalarMappable(scale, _COLOURS), cax=bar, label="attention weight")
        bar.tick_params(length=2, labelsize=7)
    return figure


def coloured(picture: Picture, weights: NDArray[np.floating], scale: Normalize) -> NDArray[np.floating]:
    """The pale image [height, width, 3] from 0 to 1, each region in the colour of its weight."""
    pixels = picture.pixels.astype(np.float64).mean(axis=0) / 255
    pale = 1 - _PALE * (1 - pixels) if picture.pixels.mean() > 127 else 1 - _PALE * pixels  # ink is dark on both
    colours = _COLOURS(scale(upsampled(picture, weights)))[..., :3]
    return np.asarray(colours * pale[..., None])


def upsampled(picture: Picture, weights: NDArray[np.floating]) -> NDArray[np.floating]:
    """The weights [S] of the regions as one of each pixel, [height, width]."""
    grid, (high, wide) = weights.reshape(picture.grid), picture.region_size
    _, height, width = picture.pixels.shape
    return grid.repeat(high, axis=0).repeat(wide, axis=1)[:height, :width]
