"""The processes of a run on several devices. Only rank 0 writes files and prints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from signal import SIGKILL
from typing import Any

from attnspan.errors import InputError

_FIRST = "ATTNSPAN_FIRST_PROCESS"
"""The environment variable with the process id of rank 0, which starts the others."""

_LAUNCHERS = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("SLURM_PROCID", "JSM_NAMESPACE_RANK"),
)
"""Variables from which Lightning and torch would take the rank of a process."""

_TASKS = {"SLURM_STEP_NUM_TASKS": "srun", "OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpirun"}
"""Variables with the number of processes that a launcher has started, and its name."""


def forget_launchers() -> None:
    """Make this process rank 0, whatever the environment says, unless a run on several devices has started it.

    A shell may keep variables of another program, and ``torchrun`` sets some. A run starts its processes itself.

    Raises:
        InputError: a launcher has started this command several times, and each would compute the same run.
    """
    if _is_started_by_rank_0():
        return
    for name, launcher in _TASKS.items():
        if (count := os.environ.get(name, "")).isdecimal() and int(count) > 1:
            raise InputError(
                f"{launcher} has started {count} processes of this command ({name}={count}), and one computes a run: "
                f"use {launcher} -n1; trainer.devices={count} trainer.strategy=ddp starts the others"
            )
    for name in _LAUNCHERS:
        os.environ.pop(name, None)
    os.environ[_FIRST] = str(os.getpid())


def rank() -> int:
    """The rank of this process; 0 if it is the only one. Lightning sets it for the processes that it starts."""
    return int(os.environ["LOCAL_RANK"]) if _is_started_by_rank_0() else 0


def _is_started_by_rank_0() -> bool:
    return _has_parent(os.environ.get(_FIRST, ""), of=os.getpid()) and os.environ.get("LOCAL_RANK", "").isdecimal()


@cache
def _has_parent(pid: str, *, of: int) -> bool:
    """Whether this process, ``of``, was started by ``pid``.

    It is asked once: a process whose parent is killed gets another parent, and must not take itself for rank 0 and
    write over rank 0's files while it ends.
    """
    return pid == str(os.getppid())


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
