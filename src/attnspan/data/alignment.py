"""Gold alignments in Pharaoh format.

::

    source  das  ist  ein  schönes  Haus       gold   0-0  1-1  2p2  4-3     sure 0-0, possible 2p2
    target  this is   a    house

A link is ``i-j``: source token i, target token j, both counted from 0. Annotators mark unambiguous links as *sure* (the
set S) and ambiguous ones as *possible* (the set P), written ``ipj`` as in the tools of Zenkel et al. 2019 and
awesome-align. Every sure link is also possible, so S is a subset of P (Och and Ney 2003, section 5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from attnspan.errors import InputError

Link = tuple[int, int]
"""(source position, target position)"""


_LINK = re.compile(r"(\d+)([-p])(\d+)", re.ASCII)


@dataclass(frozen=True)
class GoldAlignment:
    """The gold links of one example."""

    sure: frozenset[Link]
    """S"""
    possible: frozenset[Link]
    """P, a superset of S."""

    @classmethod
    def parse(cls, text: str, *, location: str, source_length: int, target_length: int) -> GoldAlignment:
        """Parse links such as ``0-0 1p1``.

        Args:
            text: links separated by white space.
            location: of the text, for error messages.
            source_length: number of source tokens.
            target_length: number of target tokens.

        Raises:
            InputError: a link is malformed, out of range, or occurs twice.
        """
        marks: dict[Link, str] = {}
        for word in text.split():
            match = _LINK.fullmatch(word)
            if match is None:
                raise InputError(f"{location}: '{word}' is not a link; write 3-4 if it is sure and 3p4 if possible")
            i, mark, j = int(match[1]), match[2], int(match[3])
            for position, side, length in ((i, "source", source_length), (j, "target", target_length)):
                if position >= length:
                    raise InputError(
                        f"{location}: link {word} refers to {side} token {position} (from 0), "
                        f"but the {side} has {length} tokens"
                    )
            if (i, j) in marks:
                raise InputError(f"{location}: source token {i} and target token {j} are linked twice")
            marks[i, j] = mark
        return cls(frozenset(link for link, mark in marks.items() if mark == "-"), frozenset(marks))


def to_pharaoh(source_positions: Iterable[int]) -> str:
    """Sure links in Pharaoh format, from the given source position to each target token in order."""
    return " ".join(f"{i}-{j}" for j, i in enumerate(source_positions))
