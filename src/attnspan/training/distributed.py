"""The processes of a run on several devices: rank 0, which alone writes files and speaks, and those that follow it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGKILL
from typing import Any


def rank() -> int:
    """Of this process; 0 where there is but one. Lightning sets the variable when it starts the others."""
    return int(os.environ.get("LOCAL_RANK", 0))


def gather(mine: Any) -> list[Any]:
    """What every process of the run brings, by rank. All of them must call it."""
    import torch.distributed as distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return [mine]
    everybody = [None] * distributed.get_world_size()
    distributed.all_gather_object(everybody, mine)
    return everybody


@contextmanager
def ending_together(trainer: Any) -> Iterator[None]:
    """Let no process of the run stay behind when rank 0, which started them, stops before the end.

    Args:
        trainer: Lightning's, of the run.
    """
    try:
        yield
    except BaseException:
        processes = getattr(trainer.strategy.launcher, "procs", [])
        for process in processes:
            process.send_signal(SIGKILL)
            process.wait()
        processes.clear()  # Lightning watches this list, and kills rank 0 too when one in it was killed
        raise
