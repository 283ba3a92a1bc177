"""What SLURM's commands ``squeue``, ``scontrol`` and ``scancel`` say and do."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Iterable
from typing import NamedTuple

NO_REASON = ("None", "(null)")
"""What ``squeue`` prints in place of a reason."""


class QueueEntry(NamedTuple):
    """The state of a job in SLURM's queue, and why it does not run yet."""

    state: str
    reason: str = NO_REASON[0]


def queue() -> dict[str, QueueEntry] | None:
    """The user's jobs that have not ended, by their ids; None if SLURM does not answer now."""
    columns = ["--noheader", "--array", "--format=%i %T %r"]
    done = subprocess.run(
        ["squeue", f"--user={getpass.getuser()}", *columns], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return None
    lines = (line.split(maxsplit=2) for line in done.stdout.splitlines() if line.strip())
    return {name: QueueEntry(state, *reason) for name, state, *reason in lines}


def job_record(name: str) -> dict[str, str]:
    """What SLURM remembers of a job; empty some minutes after its end."""
    done = subprocess.run(["scontrol", "--oneliner", "show", "job", name], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines() or [""]
    return dict(word.split("=", 1) for word in lines[0].split() if "=" in word)


def cancel(names: Iterable[str]) -> None:
    """Cancel jobs."""
    subprocess.run(["scancel", *names], capture_output=True, check=False)
