"""Optimizers that end a run in the ways in which a run can end, at its third update."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch


class Trouble(torch.optim.Adam):
    """Adam, until the third update.

    Args:
        params: what is trained.
        how: ``raise``, ``exit``, ``memory``, ``kill``, ``full`` or ``none``.
        options: of Adam.
    """

    def __init__(self, params: Iterable[torch.Tensor], *, how: str, **options: Any) -> None:
        super().__init__(params, **options)
        self.how, self.count = how, 0

    def step(self, *arguments: Any, **options: Any) -> Any:
        self.count += 1
        if self.count == 3 and self.how == "raise":
            raise RuntimeError("it had to be")
        if self.count == 3 and self.how == "exit":
            sys.exit(3)
        if self.count == 3 and self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.count == 3 and self.how == "memory":
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
            torch.zeros(2**28)  # 1 GiB
        if self.count == 3 and self.how == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**12, 2**12))
        return super().step(*arguments, **options)
