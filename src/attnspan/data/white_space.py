"""White space, one definition for all: Unicode's, as Hugging Face `tokenizers` has it.

Python's ``str.split`` and ``str.strip`` also cut at the separators U+001C to U+001F, which are no white space there.
"""

from __future__ import annotations

import re

WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)

_SYMBOL = re.compile(f"[^{WHITE_SPACE}]+")


def symbols(text: str) -> list[str]:
    """The parts of ``text`` between white space."""
    return _SYMBOL.findall(text)


def strip(text: str) -> str:
    """``text`` without white space at its ends."""
    return text.strip(WHITE_SPACE)
