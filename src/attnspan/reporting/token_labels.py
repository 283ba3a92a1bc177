"""Tokens as they can be read on an axis."""

from __future__ import annotations

import unicodedata


def visible(token: str) -> str:
    """A token as it can be read on an axis: ``␣`` for a space, ``◌̃`` for a mark without its letter, ``\\n``."""
    inside = len(token) > 1
    shown = "".join(_visible(character, inside) for character in token)
    return f"◌{shown}" if unicodedata.category(token[0]).startswith("M") else shown


def _visible(character: str, inside: bool) -> str:
    if character == " ":
        return "␣"
    if inside and character in "\u200c\u200d":  # joiners belong to the word that they stand in
        return character
    return escaped(character) if unicodedata.category(character)[0] in "CZ" else character


def escaped(character: str) -> str:
    """The code point in ASCII: ``\\u0915``."""
    return character.encode("unicode_escape").decode()
