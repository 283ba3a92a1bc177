"""A process that logs to W&B as a run does, and waits for words, or to be killed: ``DIRECTORY FIRST LAST``."""

from __future__ import annotations

import sys
from pathlib import Path

from attnspan.tracking.run_logger import WandbMirror
from attnspan.tracking.session import session

RUN = "abc123"
"""The id of the run."""


def log_updates(mirror: WandbMirror, first: int, last: int) -> None:
    """Log the loss of some updates, as Lightning does."""
    for update in range(first, last + 1):
        mirror.log_metrics({"train/loss": 1 / update, "epoch": 0}, update - 1)


if __name__ == "__main__":
    directory, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with session(directory, mode="online", run_id=RUN, log=print, project="ours") as run:
        mirror = WandbMirror(run, earlier=[], examples=0, log=print)
        log_updates(mirror, first, last)
        print("logged", flush=True)
        sys.stdin.readline()
        log_updates(mirror, last + 1, 2 * last)
        print("logged more", flush=True)
        sys.stdin.readline()
