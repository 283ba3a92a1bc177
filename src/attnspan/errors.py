"""The one exception that a user is meant to read."""

from __future__ import annotations

import difflib
import math
import signal
from collections.abc import Iterable


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one line that names the file, row, column or key. Commands print it without a traceback and exit
    with code 2.
    """


class BadRowError(InputError):
    """One row of the user's data cannot be used, whatever may be with the others."""


class AlreadyRunningError(InputError):
    """Another process works on the run. Commands then exit with code 75, EX_TEMPFAIL of sysexits.h."""

    EXIT_CODE = 75


class SettingError(ValueError):
    """An argument of a configurable class cannot be used.

    The class that owns the argument raises it, with the argument's name. :mod:`attnspan.config.instantiate` makes an
    :class:`InputError` of it that has the full key in front.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name, self.problem = name, problem


def check_counts(**values: object) -> None:
    """Raise :class:`SettingError` for the first value that is not a whole number of at least 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SettingError(name, f"must be a whole number of at least 1, not {value!r}")


def check_switches(**values: object) -> None:
    """Raise :class:`SettingError` for the first value that is neither true nor false."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise SettingError(name, f"must be true or false, not {value!r}")


def check_numbers(*, below: float = math.inf, **values: object) -> None:
    """Raise :class:`SettingError` for the first value that is not a number of at least 0 and less than ``below``."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < below:
            limit = "" if below == math.inf else f" and less than {below}"
            raise SettingError(name, f"must be a number of at least 0{limit}, not {value!r}")


class NotFiniteError(RuntimeError):
    """A model has left the numbers that a computer can hold. Commands say so in one line and exit with code 2."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Words for the end of an error line: the nearest known word if one is near, and all the known ones."""
    known = sorted(set(known))
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}known: {', '.join(known)}" if known else "none are known"


def first_line(error: BaseException) -> str:
    """The first line of an error's message that is not blank."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


def reason_of(error: BaseException) -> str:
    """Why something failed, in one line."""
    words = first_line(error)
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
