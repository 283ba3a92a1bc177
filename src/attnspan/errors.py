"""The one exception that a user is meant to read."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one line that names the file, row, column or key. Commands print it without a traceback and exit
    with code 2.
    """


class BadRowError(InputError):
    """One row of the user's data cannot be used, whatever may be with the others."""


class UnderWayError(InputError):
    """Another process is at work on the run. Commands exit with code 75, the system's word for "try again later"."""

    EXIT_CODE = 75


class NotFiniteError(RuntimeError):
    """Training has left the numbers that a computer can hold. Commands say so in one line and exit with code 2."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Words for the end of an error line: the nearest known word if one is near, and all the known ones."""
    known = sorted(set(known))
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}known: {', '.join(known)}" if known else "none are known"


def reason_of(error: BaseException) -> str:
    """Why something failed, in one line."""
    words = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, SystemExit):
        return f"sys.exit({words})"
    if is_out_of_memory(error):
        return f"out of memory ({words or type(error).__name__}); less loader.batch_tokens or n_jobs may help"
    if type(error).__module__.startswith("attnspan."):
        return words
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` tells of too little memory; torch says so in a RuntimeError of its own words."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in words or "can't allocate memory" in words


class Interrupted(BaseException):
    """The run was asked to stop, and has; not a KeyboardInterrupt, because Lightning would exit on that by itself."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
