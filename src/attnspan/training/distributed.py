"""The processes of a run on several devices. Only rank 0 writes files and prints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGKILL
from typing import Any


def rank() -> int:
    """The rank of this process; 0 if it is the only one. Lightning sets it for the processes that it starts."""
    return int(os.environ.get("LOCAL_RANK", 0))


def gather(value: Any) -> list[Any]:
    """The value of every process of the run, by rank. All of them must call it."""
    import torch.distributed as distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


@contextmanager
def ending_together(trainer: Any) -> Iterator[None]:
    """Kill the other processes of the run if rank 0, which started them, ends with an error."""
    try:
        yield
    except BaseException:
        processes = getattr(trainer.strategy.launcher, "procs", [])
        for process in processes:
            process.send_signal(SIGKILL)
            process.wait()
        processes.clear()  # Lightning watches this list, and kills rank 0 if one of them was killed
        raise
