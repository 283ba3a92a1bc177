r"""Small formulas as matplotlib sets them, to be written down as their markup (image to markup, Deng et al. 2017).

::

    source      an image of a fraction, a + 2 over x squared
    target      \frac { a + 2 } { x ^ { 2 } }

A formula of n letters and digits is one of them, or a sum, difference or equation of two smaller formulas, a fraction,
a root, or a letter with an exponent. Braces are always written, and a side of a sum has none of its own: so a formula
has one markup, and a model can reach it.

The glyphs are those of the installed matplotlib, whose releases may differ in a few pixels. Where they do, test sets
are told apart by their pixels.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from attnspan.data.corpora.images import GeneratedImages
from attnspan.errors import SettingError, check_counts

if TYPE_CHECKING:
    from attnspan.data.images.reader import Pixels

LETTERS = ("a", "b", "c", "d", "k", "n", "x", "y", "z")
DIGITS = ("2", "3", "4", "5", "6", "7", "8", "9")
OPERATORS = ("+", "-", "=")
_DOTS_PER_INCH = 72
"""So a point is a pixel."""


@dataclass(frozen=True, kw_only=True)
class Formulas(GeneratedImages):
    """Lengths are numbers of letters and digits in a formula. The background is 0, ink up to 255."""

    minimum_length: ClassVar[tuple[int, str]] = (1, "letters and digits")

    font_size: int
    """Of the letters on the line, in pixels."""
    depth: int
    """The most fractions, roots and exponents within one another; 0 for sums only."""

    def images(self, split: str, lengths: Iterator[int]) -> Iterator[tuple[Pixels, str, str]]:
        """One formula per number of letters and digits; where each stands is not known."""
        from matplotlib.font_manager import FontProperties
        from matplotlib.mathtext import MathTextParser

        draw = random.Random(f"{self.data_seed} {split}")
        parser, font = MathTextParser("agg"), FontProperties(family="DejaVu Sans", size=self.font_size)
        for n in lengths:
            tokens = formula(n, self.depth, draw)
            image = parser.parse(f"${' '.join(tokens)}$", dpi=_DOTS_PER_INCH, prop=font).image
            yield np.asarray(image, dtype=np.uint8)[None], " ".join(tokens), ""

    def _check(self) -> None:
        super()._check()
        check_counts(font_size=self.font_size)
        if not isinstance(self.depth, int) or isinstance(self.depth, bool) or self.depth < 0:
            raise SettingError("depth", f"must be a whole number of at least 0, not {self.depth!r}")


def formula(n: int, depth: int, draw: random.Random) -> list[str]:
    """The tokens of a random formula of ``n`` letters and digits, at most ``depth`` constructions deep."""
    kinds = ("sum", "fraction", "power", "root") if n > 1 else ("letter", "letter", "letter", "root")
    kind = draw.choice(kinds) if depth else kinds[0]
    if kind == "letter":
        return [draw.choice(LETTERS + DIGITS)]
    if kind == "root":
        return ["\\sqrt", *_in_braces(n, depth - 1, draw)]
    if kind == "power":
        return [draw.choice(LETTERS), "^", *_in_braces(n - 1, depth - 1, draw)]
    first = draw.randint(1, n - 1)
    if kind == "fraction":
        return ["\\frac", *_in_braces(first, depth - 1, draw), *_in_braces(n - first, depth - 1, draw)]
    return [*formula(first, depth, draw), draw.choice(OPERATORS), *formula(n - first, depth, draw)]


def _in_braces(n: int, depth: int, draw: random.Random) -> list[str]:
    return ["{", *formula(n, depth, draw), "}"]
