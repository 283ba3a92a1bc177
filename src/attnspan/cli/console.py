"""The console that commands print to."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console

_WIDTH_WITHOUT_TERMINAL = 100
_WIDE = 10_000


def open_console(*, wide: bool = False) -> Console:
    """A console on standard output, as wide as the terminal; ``COLUMNS`` says how wide where there is none.

    What the output's encoding lacks is escaped.

    Args:
        wide: where there is no terminal a line may be as long as it takes: a path that is cut in two is none.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and int(columns) else _WIDE if wide else _WIDTH_WITHOUT_TERMINAL
    return Console(highlight=False, width=None if sys.stdout.isatty() else width)


class _Lasting(io.FileIO):
    """Takes what is written where nobody reads it any more."""

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content) or 0
        except BrokenPipeError:
            return memoryview(content).nbytes


@contextmanager
def unbreakable(stream: TextIO) -> Iterator[TextIO]:
    """A stream to where ``stream`` goes, whose reader may go away (``| head``): what is written then is lost."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # it is no file
        yield stream
        return
    stream.flush()
    lasting = io.TextIOWrapper(
        io.BufferedWriter(_Lasting(number, "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.isatty(),
        write_through=stream is sys.stderr,
    )
    try:
        yield lasting
    finally:
        lasting.flush()


class ListParser(argparse.ArgumentParser):
    """Reads ``@file`` as one argument a line; empty lines and lines that begin with # are skipped."""

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        """Read a line of such a file."""
        line = arg_line.strip()
        return [line] if line and not line.startswith("#") else []
