"""A run without a model, in its own process: it holds the lock, writes its status, and ends as it is told to.

``python -m tests.stub_run DIRECTORY WHAT [SECONDS [LOSS]]``
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from attnspan.checksums import make_manifest
from attnspan.errors import AlreadyRunningError
from attnspan.files import write_json, write_text
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import CONFIG, FILES, LOCK, NEEDED, SUMMARY
from attnspan.runs.status import FAILED, FINISHED, INTERRUPTED, RUNNING, TRAINING, Status, StatusWriter
from attnspan.sweeps.job import Job

SEED = 1


def stub_job(directory: Path, *words: object, updates: int = 20, varied: str = "") -> Job:
    """A job whose process is this module, called with ``words``."""
    config = {"arm": "plain", "data_name": "reverse", "seed": SEED, "trainer": {"max_steps": updates}}
    arguments = [sys.executable, "-m", "tests.stub_run", str(directory), *map(str, words)]
    return Job(config=config, directory=directory, command="attnspan-train", arguments=arguments, varied=varied)


def write_results(
    directory: Path, *, seconds: float = 10.0, updates: int = 20, arm: str = "plain", loss: float = 1.5
) -> None:
    """The files of a finished run."""
    if not (directory / CONFIG).exists():
        write_text(directory / CONFIG, "arm: plain\n")
    for name in {*NEEDED} - {CONFIG}:
        write_text(directory / name, "step\n")
    run = {"arm": arm, "data": "reverse", "seed": SEED, "run_id": directory.name}
    scores = {"test": {"error_rate": 0.25}, "best_validation_loss": loss}
    facts: dict[str, Any] = {"finished": True, FILES: make_manifest(directory, NEEDED)}
    facts |= {"wall_seconds": seconds, "updates": updates, "machine": {"processor": "Test Processor"}}
    write_json(directory / SUMMARY, {**run, **scores, **facts})


def main() -> None:
    """Do what the command line says."""
    directory, what, *numbers = Path(sys.argv[1]), *sys.argv[2:]
    seconds, loss = (*map(float, numbers), *(0.0, 1.5)[len(numbers) :])
    directory.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(directory / LOCK, timeout=1)
        lock.acquire()
    except Timeout:
        sys.exit(AlreadyRunningError.EXIT_CODE)
    if what == "once" and is_finished(directory):
        return
    with (directory.parent / f"{directory.name}.computed").open("a") as file:
        file.write(f"{os.getpid()}\n")
    with StatusWriter(directory, arm="plain", data="reverse", seed=SEED) as writer:
        asked: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
        deadline = time.monotonic() + seconds
        while True:
            writer.write(Status(state=RUNNING, phase=TRAINING, update=7, updates=20, loss=1.5, remaining=3.0))
            if asked:
                writer.write(Status(state=INTERRUPTED, reason="by SIGTERM"))
                sys.exit(143)
            if time.monotonic() >= deadline:
                break
            time.sleep(0.05)
        if what == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "good, asked":
            write_results(directory)
            writer.write(Status(state=FINISHED))
        if what == "fail, asked":
            writer.write(Status(state=FAILED, reason="it had to be"))
        if what.endswith("asked"):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        if what == "realtime":
            os.kill(os.getpid(), signal.SIGRTMIN + 6)
        if what == "exit":
            sys.exit(3)
        if what == "memory":
            resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28))
            bytearray(2**30)
        if what == "fail":
            writer.write(Status(state=FAILED, reason="it had to be", traceback="Traceback ..."))
            sys.exit(2)
        write_results(directory, loss=loss)
        writer.write(Status(state=FINISHED))


if __name__ == "__main__":
    main()
