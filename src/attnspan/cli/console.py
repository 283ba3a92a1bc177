"""Output and argument parsing that the commands share."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

import attnspan
from attnspan.errors import InputError
from attnspan.runs.layout import trained_runs
from attnspan.runs.run_lists import read_list

_WIDTH_WITHOUT_TERMINAL = 100
_WIDE = 10_000


def open_console(*, wide: bool = False) -> Console:
    """A console on standard output, as wide as the terminal; ``COLUMNS`` overrides the width of other outputs.

    Characters that the output's encoding lacks are escaped. With ``wide``, lines are not wrapped where there is no
    terminal: a path must stay in one piece.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and int(columns) else _WIDE if wide else _WIDTH_WITHOUT_TERMINAL
    return Console(highlight=False, width=None if sys.stdout.isatty() else width)


class _IgnoresBrokenPipe(io.FileIO):
    """Discards what is written to a pipe that has no reader any more."""

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content) or 0
        except BrokenPipeError:
            return memoryview(content).nbytes


@contextmanager
def unbreakable(stream: TextIO) -> Iterator[TextIO]:
    """A stream to the same file as ``stream``, whose reader may end (``| head``): later output is discarded."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # not backed by a file
        yield stream
        return
    stream.flush()
    unbroken = io.TextIOWrapper(
        io.BufferedWriter(_IgnoresBrokenPipe(number, "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.isatty(),
        write_through=stream is sys.stderr,
    )
    try:
        yield unbroken
    finally:
        unbroken.flush()


def command(name: str) -> Callable[[Callable[[list[str]], None]], Callable[..., int]]:
    """Make a command of a function that takes the arguments. It returns an exit code: 2 after an error of one line."""

    def decorate(body: Callable[[list[str]], None]) -> Callable[..., int]:
        @wraps(body)
        def main(arguments: Sequence[str] | None = None) -> int:
            try:
                body(list(sys.argv[1:] if arguments is None else arguments))
            except InputError as error:
                if os.environ.get("ATTNSPAN_TRACEBACK"):  # for developers
                    raise
                print(f"{name}: {error}", file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                return 130
            return 0

        return main

    return decorate


def add_trusted(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--trusted``."""
    parser.add_argument(
        "--trusted", action="append", default=[], metavar="PACKAGE",
        help="another package whose classes a run's config may name, for arms of your own; may be repeated",
    )  # fmt: skip


def only_run(path: Path) -> Path:
    """The one run in or below ``path``.

    Raises:
        InputError: there is none, or there are several.
    """
    first, *others = trained_runs([path])
    if others:
        raise InputError(f"{path}: has {1 + len(others)} runs; give one of them, as in {first}")
    return first


class Parser(argparse.ArgumentParser):
    """Of a command: it has ``--version`` too."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_argument("--version", action=_PrintVersion, nargs=0, help="print the version of attnspan and end")


class _PrintVersion(argparse.Action):
    """Finds the version when it is asked for, which takes longer than to parse the arguments."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print_version(parser.prog)
        parser.exit()


def print_version(name: str) -> None:
    """Print the version of the command ``name``."""
    print(f"{name} {attnspan.__version__}")


class ListParser(Parser):
    """Reads ``@FILE`` as the runs that the file lists (:mod:`attnspan.runs.run_lists`)."""

    def add_runs(self) -> None:
        """Add the argument ``runs``."""
        words = "a run directory, a directory above some, or @FILE that lists them"
        self.add_argument("runs", nargs="+", metavar="RUN", help=words)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, which all other ways to parse call."""
        words: list[str] = []
        for word in sys.argv[1:] if args is None else args:
            try:
                words += read_list(Path(word[1:])) if word.startswith("@") else [word]
            except InputError as error:
                self.exit(2, f"{self.prog}: {error}\n")
        return super().parse_known_args(words, namespace)
