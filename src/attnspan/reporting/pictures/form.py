"""How large a plot is, and its letters."""

from __future__ import annotations

import math
import re
import textwrap
import warnings
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.text import Text

from attnspan.errors import InputError

_NARROWER = 5.0
"""Inches: a plot that is less wide has fewer labels, and legends in two columns at most."""
_MUCH_LONGER = 1.3
"""Times its axis: a label that reaches into other panels, or out of the figure."""
CURVE = (4.4, 4.3)
"""Inches: the height of the error curve where it is wide, and where it is narrow."""


@dataclass(frozen=True)
class Form:
    """How large a plot is and its letters are; the defaults are those of a page."""

    width: float = 7.2
    """In inches."""
    height: float | None = None
    """Of the error curve in inches; other plots keep their proportions to it. None for the height that they have."""
    font: float = 9.0
    """Points of the letters on axes; those of legends and notes keep their proportions to it."""

    @property
    def is_narrow(self) -> bool:
        """Whether there is room for few labels."""
        return self.width < _NARROWER

    def size(self, wide: float, narrow: float) -> tuple[float, float]:
        """Width and height of a plot, in inches, which is so high where it is wide, and so high where it is narrow."""
        usual = narrow if self.is_narrow else wide
        return self.width, usual if self.height is None else usual * self.height / CURVE[self.is_narrow]


PAGE, PHONE = Form(), Form(width=3.7)


def form_for_files(size: str | None, font: float | None) -> Form:
    """The form of the plots in files, as the options ask for it.

    Args:
        size: ``--figure-size``, as in ``3.3x2.8``: width and height of the error curve in inches; None for the page's.
        font: ``--font-size``, in points; None for the page's.

    Raises:
        InputError: it is not that, or out of the range of figures.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)", size) if size else None
    if size and not (found and all(1 <= float(one) <= 40 for one in found.groups())):
        raise InputError(f"--figure-size {size}: must be width x height in inches, each from 1 to 40, as in 3.3x2.8")
    if font is not None and not 3 <= font <= 40:
        raise InputError(f"--font-size {font:g}: must be points from 3 to 40")
    width, height = (float(found[1]), float(found[2])) if found else (PAGE.width, PAGE.height)
    return Form(width, height, PAGE.font if font is None else font)


def lay_out(figure: Figure, form: Form) -> None:
    """Set the letters in the sizes of ``form``, and place everything.

    Raises:
        InputError: the figure is too small for its letters.
    """
    factor = form.font / 9
    if factor != 1:
        for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
            if major := axis.get_major_ticks():
                axis.set_tick_params(labelsize=float(major[0].label1.get_fontsize()) * factor)
        ticks = {id(text) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for text in axis.findobj(Text)}
        labels = {id(one.label) for axes in figure.axes for one in (axes.xaxis, axes.yaxis)}
        for text in figure.findobj(Text):
            if id(text) not in ticks - labels:
                text.set_fontsize(float(text.get_fontsize()) * factor)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.draw_without_rendering()
        if _break_long_labels(figure):
            figure.draw_without_rendering()
    if any("constrained_layout not applied" in str(one.message) for one in caught):
        wide, high = figure.get_size_inches()
        raise InputError(f"a plot of {wide:.1f} x {high:.1f} inches is too small for its legend and its labels")
    figure.set_layout_engine("none")


def _break_long_labels(figure: Figure) -> bool:
    """Break the labels of vertical axes that are much longer than their axis into lines; whether there are any."""
    broken = False
    for axes in figure.axes:
        label, high = axes.yaxis.label, axes.get_window_extent().height
        lines = math.ceil(label.get_window_extent().height / high) if label.get_rotation() == 90 else 1
        if label.get_window_extent().height > _MUCH_LONGER * high:
            width = math.ceil(len(label.get_text()) / lines) + 4
            label.set_text(textwrap.fill(label.get_text(), width, break_on_hyphens=False, break_long_words=False))
            broken = True
    return broken
