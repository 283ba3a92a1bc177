"""Text and tables in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def escaped(text: str) -> str:
    """Text whose signs have no meaning in Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>$|~^#])", r"\\\1", text)


def code(text: str) -> str:
    """Text in backticks, for a cell of a table."""
    return f"`{text}`".replace("|", "\\|") if text else ""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown."""
    lines = [f"| {' | '.join(columns)} |", f"|{':--|' * len(columns)}"]
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join(lines) + "\n"
