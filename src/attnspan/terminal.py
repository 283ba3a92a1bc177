"""The console that commands print to."""

from __future__ import annotations

import io
import os
import sys

from rich.console import Console

_WIDTH_WITHOUT_TERMINAL = 100


def open_console() -> Console:
    """A console on standard output, as wide as the terminal; ``COLUMNS`` says how wide where there is none.

    What the output's encoding lacks is escaped.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and int(columns) else _WIDTH_WITHOUT_TERMINAL
    return Console(highlight=False, width=None if sys.stdout.isatty() else width)
