"""Numbers and nouns in sentences."""

from __future__ import annotations


def plural(count: object, noun: str) -> str:
    """The noun as it stands after ``count``, a number or a range of lengths: ``token`` after 1, else ``tokens``."""
    return noun if str(count) == "1" else f"{noun}s"


def counted(count: int, noun: str) -> str:
    """As in ``1 example`` and ``3,840 examples``."""
    return f"{count:,} {plural(count, noun)}"
