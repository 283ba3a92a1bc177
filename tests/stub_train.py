"""``attnspan-train`` with runs that hold no model: up to the processes of its jobs everything is real.

``python -m tests.stub_train OVERRIDES``, with

=================  ================================================================================================
``STUB_SECONDS``   how long a run takes
``STUB_FAILS``     words of the command line; a run with one of them fails
``STUB_LAUNCHES``  launch so many at the same instant
=================  ================================================================================================

A run's loss is a function of its settings. ``prepared`` in the cache gets a line each time that data is made.
"""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from attnspan.cli import train
from attnspan.data.pipeline import cache
from attnspan.files import write_text
from attnspan.runs.layout import CONFIG
from attnspan.sweeps import job_process, plan
from attnspan.sweeps.job import read_job


def loss_of(words: list[str]) -> float:
    """Least at ``optimizer.lr=0.003``, ``model.hidden_size=32``."""
    settings = dict(word.lstrip("+").split("=", 1) for word in words if "=" in word)
    rate, size = float(settings.get("optimizer.lr", 1)), int(settings.get("model.hidden_size", 32))
    return (math.log10(rate) - math.log10(0.003)) ** 2 + abs(math.log2(size / 32))


@contextmanager
def stubs() -> Iterator[None]:
    """Put stubs in the place of runs, and of the check that builds their models."""
    build = cache._build

    def start(arguments: list[str], **how: Any) -> subprocess.Popen[bytes]:
        directory = Path(arguments[-1])
        job = read_job(directory)
        command = shlex.split(job.command)
        what = "fail" if set(command) & set(os.environ.get("STUB_FAILS", "").split()) else "once"
        write_text(directory / CONFIG, yaml.safe_dump(job.config))
        words = [str(directory), what, os.environ.get("STUB_SECONDS", "0"), str(loss_of(command))]
        return subprocess.Popen([sys.executable, "-m", "tests.stub_run", *words], **how)

    def build_and_note(directory: Path, fill: Callable[[Path], None]) -> None:
        with directory.with_name("prepared").open("a") as file:
            file.write(f"{directory.name}\n")
        build(directory, fill)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_process, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": start}))
        patch.setattr(plan, "refuse_unfit", lambda configs: [])
        patch.setattr(cache, "_build", build_and_note)
        yield


def launch(count: int, go: Path) -> int:
    """Fork so many processes, each of which starts its sweep when ``go`` is there; all share what is loaded.

    Returns:
        How many ended with another exit code than 0; ``<go>.<number>`` has what each printed.
    """
    children = []
    for number in range(count):
        if child := os.fork():
            children.append(child)
            continue
        out = os.open(go.with_name(f"{go.name}.{number}"), os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1)
        os.dup2(out, 2)
        while not go.exists():
            time.sleep(0.001)
        train.main()
        return 0
    go.touch()
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


if __name__ == "__main__":
    with stubs():
        if "STUB_LAUNCHES" in os.environ:
            sys.exit(launch(int(os.environ["STUB_LAUNCHES"]), Path("go")))
        train.main()
