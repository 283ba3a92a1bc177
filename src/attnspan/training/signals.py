"""Signals that ask a run to stop, which it does between two updates, or a sweep, which then stops its runs."""

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
    """Records SIGINT, SIGTERM or SIGHUP, so that the run can stop between two updates.

    A second signal stops it at once. A signal that was ignored when the run started, as ``nohup`` does, stays ignored.

    On a cluster every process of a job gets the signal, and the parent process forwards it as well. A signal within
    ``ONE_REQUEST`` seconds of the first one therefore counts as the same request.

    Args:
        follows: this process stops when rank 0 tells it to, not on signals.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ONE_REQUEST = 2.0

    def __init__(self, *, follows: bool = False) -> None:
        self.number: int | None = None
        self._first = math.inf
        self._follows = follows
        self._pid = os.getpid()
        self._handled = [number for number in self.SIGNALS if signal.getsignal(number) != signal.SIG_IGN]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Install the signal handlers, and restore the previous ones afterwards."""
        before = [(number, signal.getsignal(number)) for number in self._handled]
        self.listen()
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before:
                    signal.signal(number, handler)

    def listen(self) -> None:
        """Install the signal handlers again: Lightning installs its own when it starts to train or to test."""
        if threading.current_thread() is threading.main_thread():
            for number in self._handled:
                signal.signal(number, self._record)

    def check(self) -> None:
        """Stop here if a signal has come.

        Raises:
            Interrupted: one has.
        """
        if self.number is not None:
            raise Interrupted(self.number)

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self._follows or os.getpid() != self._pid:  # a loader worker, which the run itself stops
            return
        if self.number is None:
            self._first = time.monotonic()
        self.number = number
        if time.monotonic() - self._first > self.ONE_REQUEST:
            raise Interrupted(number)


def interrupt_on_termination() -> Callable[[], None]:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, unless they are ignored.

    Returns:
        A function that restores the previous handlers.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    handled = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in handled:
        signal.signal(number, signal.default_int_handler)

    def restore() -> None:
        for number, handler in handled.items():
            signal.signal(number, handler)

    return restore
