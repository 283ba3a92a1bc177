"""Readable labels for tokens."""

from __future__ import annotations

import unicodedata


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
