"""Real runs in real processes, killed at random moments; and what must be the same afterwards.

A process that has loaded everything and has one thread forks the runs, so that none of them pays for imports.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml

from attnspan.config.identity import run_directory
from attnspan.config.instantiate import build_corpus
from attnspan.data.pipeline.prepare import prepare
from attnspan.files import read_json
from attnspan.models.recurrence.fused import FusedRecurrence
from attnspan.runs.checkpoint_file import read_checkpoint
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import BEST, METRICS, RECORDS, SUMMARY
from attnspan.runs.status import INTERRUPTED, current_status, is_locked, read_status
from attnspan.training.callbacks.progress import ProgressReporter
from attnspan.training.run import execute
from tests.conftest import TINY

# What numba does once takes a third of a second; now the server has done it for its processes.
FusedRecurrence(cell=torch.nn.GRU, input_size=1, hidden_size=1, layers=1, dropout=0.0)(torch.ones(1, 2, 1))

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.kills"])

VICTIM = (
    *TINY,
    "model.dropout=0.3",
    "trainer.max_steps=60",
    "trainer.val_check_interval=15",
    "data.train_size=900",
    "data.validation_size=400",
    "data.test_size=800",
    "loader.evaluation_batch_tokens=256",
)
"""A run of some seconds, of which training, validation and test each have their share."""


def numbers(directory: Path) -> dict[str, Any]:
    """All that must be the same."""
    summary = read_json(directory / SUMMARY)
    chosen = f"best_validation_{summary['selection_metric']}"
    losses = ("first_training_loss", "final_training_loss", "final_validation_loss")
    facts = ("run_id", "updates", "best_update", "best_validation_loss", chosen, "test", *losses)
    return {
        "weights": {name: tensor.tolist() for name, tensor in read_checkpoint(directory / BEST)["state_dict"].items()},
        RECORDS: (directory / RECORDS).read_bytes(),
        METRICS: (directory / METRICS).read_bytes(),
        SUMMARY: {name: summary[name] for name in facts},
    }


def assert_same(one: Path, other: Path) -> None:
    """Two finished runs have the same weights, records and metrics, bit for bit."""
    a, b = numbers(one), numbers(other)
    for name in a:
        assert a[name] == b[name], name


DEFAULT_METHOD = multiprocessing.get_all_start_methods()[0]
"""How a process starts others, where nobody says anything."""


def carry_out(config: dict[str, Any], log: Path, start_method: str) -> None:
    """One attempt at a run, in a process of its own."""
    os.setsid()
    multiprocessing.set_start_method(start_method, force=True)  # the server has set its own
    ProgressReporter.EVERY = 0.0  # the status says what the run was killed at
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    prepared = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    directory = run_directory(config, data_fingerprint=prepared.fingerprint)
    execute(
        config,
        data=prepared,
        directory=directory,
        command="",
        report=lambda status: None,
        log=lambda line: print(line, flush=True),
    )


def directory_of(config: dict[str, Any]) -> Path:
    """Where the run of ``config`` lies."""
    prepared = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    return run_directory(config, data_fingerprint=prepared.fingerprint)


def begin(config: dict[str, Any], *, start_method: str = DEFAULT_METHOD) -> tuple[BaseProcess, Path]:
    """Start the run of ``config``, or what is left of it; returns its process, and where its output goes."""
    log = Path(config["runs_dir"], "attempts.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    process = SERVER.Process(target=carry_out, args=(config, log, start_method))
    process.start()
    return process, log


def attempt(config: dict[str, Any], *, kill_after: float | None = None) -> tuple[bool, float]:
    """Start the run of ``config``, or what is left of it, and kill it after so many seconds.

    Returns:
        Whether it was killed, rather than done before; and the seconds that it had.
    """
    began = time.monotonic()
    process, log = begin(config)
    process.join(kill_after)
    if process.exitcode is None:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    seconds = time.monotonic() - began
    assert process.exitcode in (0, -signal.SIGKILL), log.read_text(encoding="utf-8")
    return process.exitcode != 0, seconds


def assert_nothing_is_broken(directory: Path) -> str:
    """A killed run is called interrupted, its lock is free, and every file is whole; says in which phase it was."""
    assert not is_finished(directory)
    assert not is_locked(directory)
    if not directory.exists():
        return "before its directory"
    for path in directory.rglob("*"):
        if path.name.startswith("."):  # temporary neighbours, which the next attempt removes
            continue
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".ckpt":
            read_checkpoint(path)
        elif path.suffix == ".parquet":
            pq.read_table(path)
        elif path.suffix == ".yaml":
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            assert content.get("config", content)["arm"]  # job.yaml holds the config below a key
    status = read_status(directory)
    if status is None:
        return "before its status"
    assert current_status(directory).state == INTERRUPTED
    writing = [path.name.split(".")[1] for path in directory.rglob(".*.*.*") if path.is_file()]
    return f"writing {writing[0]}" if writing else status.phase or status.state


def kill_and_go_on(config: dict[str, Any], draw: random.Random, *, mean: float) -> tuple[Path, Counter[str]]:
    """Kill a run at random moments until it is done in spite of that.

    Args:
        config: of the run.
        draw: draws the seconds that an attempt gets, exponentially: a kill is as likely at one moment as at any other,
            and whatever has to be done in one go is done some time.
        mean: of these seconds.

    Returns:
        Its directory, and how often it was killed in which phase.
    """
    directory, killed = directory_of(config), Counter[str]()
    for _ in range(500):
        if not attempt(config, kill_after=draw.expovariate(1 / mean))[0]:
            return directory, killed
        if not is_finished(directory):  # killed on its way out, it is done all the same
            killed[assert_nothing_is_broken(directory)] += 1
    raise AssertionError(f"not done after {killed.total()} kills: {dict(killed)}")
