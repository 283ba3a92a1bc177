"""How a run is getting on: one small file in its directory, rewritten while it works and read by whoever waits."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from attnspan.rundir import STATUS, write_text

STARTING, PREPARING = "starting", "preparing"
TRAINING, VALIDATING, TESTING = "training", "validating", "testing"
FINISHED, FAILED, INTERRUPTED = "finished", "failed", "interrupted"
AT_WORK = (STARTING, PREPARING, TRAINING, VALIDATING, TESTING)


@dataclass(kw_only=True)
class Status:
    """What a run is doing.

    Attributes:
        state: one of the words above.
        done: units of the state done: updates in training, batches in validation and testing.
        total: units of the state in all.
        loss: last known training loss, nats per target token.
        seconds: time since the run began.
        remaining: estimated seconds to the end of the state, None where nobody knows.
        reason: why it failed, one line.
        host: where it runs.
        pid: its process there.
        heartbeat: when this was written, seconds since the epoch.
    """

    state: str = PREPARING
    done: int = 0
    total: int = 0
    loss: float | None = None
    seconds: float = 0.0
    remaining: float | None = None
    reason: str | None = None
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    heartbeat: float = field(default_factory=time.time)

    def write(self, directory: Path) -> None:
        """Put this status into a run directory."""
        self.heartbeat = time.time()
        write_text(directory / STATUS, json.dumps(asdict(self), indent=2) + "\n")


def read_status(directory: Path) -> Status | None:
    """Read a run directory's status, None where there is none."""
    try:
        return Status(**json.loads((directory / STATUS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
