"""The fonts that draw tokens of any script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import matplotlib as mpl
from matplotlib.font_manager import FontEntry, fontManager, get_font

from attnspan.reporting.formatting import escaped, visible


def drawable(*lists: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Font families, and the tokens of each list as labels; characters that no font has are escaped."""
    labels = [[visible(token) for token in tokens] for tokens in lists]
    families, missing = _families({character for tokens in labels for token in tokens for character in token})
    without = str.maketrans({character: escaped(character) for character in missing})
    return families, [[label.translate(without) for label in tokens] for tokens in labels]


def _families(characters: set[str]) -> tuple[list[str], set[str]]:
    """Families that together draw ``characters``, and those characters that no installed font can draw."""
    families: list[str] = []
    missing = set(characters)
    for entry in _fonts():
        font = get_font(entry.fname)
        found = {character for character in missing if font.get_char_index(ord(character))}
        if found or not families:
            families.append(entry.name)
        missing -= found
        if not missing:
            break
    return families, missing


def _fonts() -> Iterator[FontEntry]:
    """The font of all figures, then the installed ones; matplotlib's other fonts have encodings of their own."""
    own = mpl.get_data_path()
    entries = [entry for entry in fontManager.ttflist if entry.style == "normal" and entry.weight == 400]
    entries.sort(key=lambda entry: (entry.name, entry.fname))
    yield from [entry for entry in entries if entry.name == "DejaVu Sans"][:1]
    yield from (entry for entry in entries if entry.name != "DejaVu Sans" and not entry.fname.startswith(own))
