"""How a run is asked to stop, and stops between two updates; and how a sweep is, which stops its runs."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from attnspan.errors import Interrupted


class Stop:
    """Remembers that SIGINT, SIGTERM or SIGHUP came, so that the run can stop between two updates.

    The second stops at once. What was ignored when the run began stays so: ``nohup`` means it.

    Of a cluster's job every process gets the signal, and the one that started us passes it on: what comes within
    ``ONE_REQUEST`` seconds is the first one again.

    Args:
        follows: this process stops when rank 0 says so, not by itself.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ONE_REQUEST = 2.0

    def __init__(self, *, follows: bool = False) -> None:
        self.number: int | None = None
        self._first = math.inf
        self._follows = follows
        self._pid = os.getpid()
        self._heard = [number for number in self.SIGNALS if signal.getsignal(number) != signal.SIG_IGN]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen for the signals, and let those listen afterwards who did before."""
        before = [(number, signal.getsignal(number)) for number in self._heard]
        self.listen()
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before:
                    signal.signal(number, handler)

    def listen(self) -> None:
        """Listen again: Lightning puts its own listeners in place when it begins to train or to test."""
        if threading.current_thread() is threading.main_thread():
            for number in self._heard:
                signal.signal(number, self._note)

    def check(self) -> None:
        """Stop here if a signal came.

        Raises:
            Interrupted: it did.
        """
        if self.number is not None:
            raise Interrupted(self.number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._follows or os.getpid() != self._pid:  # the latter in a worker of a loader: the run itself stops it
            return
        if self.number is None:
            self._first = time.monotonic()
        self.number = number
        if time.monotonic() - self._first > self.ONE_REQUEST:
            raise Interrupted(number)


def interrupt_on_end() -> Callable[[], None]:
    """Have SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, but for one that is ignored.

    Returns:
        What has them do again what they did before.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    heard = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in heard:
        signal.signal(number, signal.default_int_handler)

    def undo() -> None:
        for number, handler in heard.items():
            signal.signal(number, handler)

    return undo
