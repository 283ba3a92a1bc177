"""Numbers, intervals, durations and tokens as text, the same in the terminal, on the page and in report.md."""

from __future__ import annotations

import math
import re
import unicodedata

from attnspan.analysis.lengths.spans import Span
from attnspan.analysis.seed_groups import Groups, group_means
from attnspan.analysis.statistics import Estimate, Floats

NONE = "–"


def number(value: float, digits: int = 3) -> str:
    """With a true minus sign; a dash for nan."""
    if math.isnan(value):
        return NONE
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if not text.strip("-0.") else text.replace("-", "−")


def with_interval(estimate: Estimate, digits: int = 3) -> str:
    """``0.712 [0.690, 0.734]``."""
    if math.isnan(estimate.value):
        return NONE
    if math.isnan(estimate.low):
        return f"{number(estimate.value, digits)} (no variation)"
    return f"{number(estimate.value, digits)} [{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def in_groups(by_seed: Floats, seeds: tuple[int, ...], groups: Groups, digits: int = 3) -> str:
    """The mean of each group of seeds: ``0.114 / 0.832``."""
    return " / ".join(number(mean, digits) for _, mean in group_means(by_seed, seeds, groups))


def p_value(p: float) -> str:
    """Three decimals, or ``< 0.001``."""
    return "< 0.001" if p < 0.001 else number(p)


def span_interval(span: Span) -> str:
    """``21 to 29``, ``89 to > 100``."""
    return str(span.low) if str(span.low) == str(span.high) else f"{span.low} to {span.high}"


_NUMBER = r"(?:[<>] )?[−-]?\d[\d.,]*"
_NUMBERS = re.compile(rf"{_NUMBER} to {_NUMBER}|[<>] \d")


def unbroken(sentence: str) -> str:
    """The sentence with no-break spaces within a range of numbers (``35 to > 45``) and after ``>`` and ``<``."""
    return _NUMBERS.sub(lambda found: found[0].replace(" ", "\u00a0"), sentence)


def duration(seconds: float | None) -> str:
    """``3 min 12 s``."""
    if seconds is None:
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def visible(token: str) -> str:
    """A readable label: ``␣`` for a space, ``◌̃`` for a combining mark without its letter, ``\\n`` for a line break."""
    inside = len(token) > 1
    shown = "".join(_visible(character, inside) for character in token)
    return f"◌{shown}" if unicodedata.category(token[0]).startswith("M") else shown


def _visible(character: str, inside: bool) -> str:
    if character == " ":
        return "␣"
    if inside and character in "\u200c\u200d":  # joiners belong to the word around them
        return character
    return escaped(character) if unicodedata.category(character)[0] in "CZ" else character


def escaped(character: str) -> str:
    """The code point in ASCII: ``\\u0915``."""
    return character.encode("unicode_escape").decode()
