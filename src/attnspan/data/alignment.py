"""Gold alignments in Pharaoh format.

::

    source  das  ist  ein  schönes  Haus       gold   0-0  1-1  2p2  4-3     sure 0-0, possible 2p2
    target  this is   a    house

A link is ``i-j``: source token i, target token j, both from 0. Annotators draw *sure* links S, about which nobody
argues, and *possible* ones, written ``ipj`` (as the tools of Zenkel et al. 2019 and awesome-align write them); a sure
link is possible too, so S is a part of P (Och and Ney 2003, section 5).
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
class Gold:
    """The gold links of one example."""

    sure: frozenset[Link]
    """S"""
    possible: frozenset[Link]
    """P, all of S among them."""

    @classmethod
    def read(cls, text: str, *, where: str, source_length: int, target_length: int) -> Gold:
        """Read ``0-0 1p1``.

        Args:
            text: links with white space between them.
            where: names the cell in an error.
            source_length: S, tokens.
            target_length: T, tokens.

        Raises:
            InputError: a word is no link, leads out of the source or target, or stands there twice.
        """
        marks: dict[Link, str] = {}
        for word in text.split():
            match = _LINK.fullmatch(word)
            if match is None:
                raise InputError(f"{where}: '{word}' is no link; a sure one is written 3-4, a possible one 3p4")
            i, mark, j = int(match[1]), match[2], int(match[3])
            for position, side, length in ((i, "source", source_length), (j, "target", target_length)):
                if position >= length:
                    raise InputError(
                        f"{where}: link {word} leads to {side} token {position}, but the {side} has {length} tokens, "
                        "counted from 0"
                    )
            if (i, j) in marks:
                raise InputError(f"{where}: there are two links between source token {i} and target token {j}")
            marks[i, j] = mark
        return cls(frozenset(link for link, mark in marks.items() if mark == "-"), frozenset(marks))


def pharaoh(needed: Iterable[int]) -> str:
    """Write sure links in Pharaoh format, one to each target token, from the source position that it needs."""
    return " ".join(f"{i}-{j}" for j, i in enumerate(needed))
