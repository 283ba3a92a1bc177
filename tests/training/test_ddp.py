"""Runs on two processes: the numbers of one process to within rounding, each test example once, killed and resumed."""

from __future__ import annotations

import multiprocessing
import os
import random
import select
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from lightning.pytorch.strategies.launchers import subprocess_script

from attnspan.data.pipeline.batches import Batch, EncodedSplit
from attnspan.files import read_json
from attnspan.runs.checkpoint_file import read_checkpoint
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import METRICS, RECORDS, STATUS, SUMMARY
from attnspan.runs.status import INTERRUPTED, TRAINING, read_status
from attnspan.training.distributed import forget_launchers
from tests.commands import complete
from tests.conftest import TINY, Compose
from tests.kills import assert_same
from tests.training.test_lightning_module import module
from tests.training.test_resume import run

TWO = ("trainer.devices=2", "trainer.strategy=ddp")
FEW = ("decoder=bahdanau", "data.train_size=60", "loader.batch_tokens=14", "trainer.log_every_n_steps=1")
"""Batches of five examples down to one, in which the second process has nothing."""


@pytest.fixture
def split() -> Dataset:
    pairs = [([4, 5, 6], [4]), ([7], [5, 6]), ([4, 4], [6, 6, 6])]
    return Dataset.from_dict({"source_ids": [s for s, _ in pairs], "target_ids": [t for _, t in pairs]})


def shares(split: Dataset, rows: list[int], *, ranks: int) -> list[Batch]:
    return [EncodedSplit(split, rank=rank, ranks=ranks)[rows] for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_shares_of_a_batch(composed: Compose, split: Dataset, ranks: int) -> None:
    """Together they are the batch; the mean of their losses and gradients is that of the whole."""
    whole, parts = EncodedSplit(split)[[2, 0, 1]], shares(split, [2, 0, 1], ranks=ranks)
    rows = [row for part in parts if part.examples for row in part.index.tolist()]
    assert sorted(rows) == [0, 1, 2]
    assert sum(part.target_tokens for part in parts) == whole.target_tokens == whole.whole_tokens == 9
    assert {part.whole_tokens for part in parts} == {9}

    made = module(composed, label_smoothing=0.1).double()

    def loss_and_gradients(*batches: Batch) -> tuple[float, list[torch.Tensor]]:
        loss = sum((made.training_step(batch) for batch in batches), torch.zeros(())) / len(batches)
        return float(loss.detach()), list(torch.autograd.grad(loss, list(made.parameters())))

    loss, gradients = loss_and_gradients(whole)
    shared_loss, shared_gradients = loss_and_gradients(*parts)
    assert shared_loss == pytest.approx(loss)
    for one, other in zip(gradients, shared_gradients, strict=True):
        torch.testing.assert_close(one, other)


def curves(directory: Path) -> pd.DataFrame:
    return pd.read_csv(directory / METRICS)


def test_a_sweep_on_two_processes(composed: Compose, tmp_path: Path) -> None:
    """One job of a sweep: the sweep is launched once, and the job has the numbers of one process."""
    alone, _ = run(composed(*TINY, *FEW, f"runs_dir={tmp_path / 'alone'}"))
    words = (*TINY, *TWO, *FEW, "-m", "seed=1", "study=mine")
    done = complete("attnspan.cli.train", *words, cwd=tmp_path, environment=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("1 of 1 runs") == 1
    (directory,) = map(Path, (tmp_path / "runs" / "mine.txt").read_text(encoding="utf-8").split())
    directory = tmp_path / directory
    assert directory.name == alone.name  # the number of devices is no part of who a run is
    log = (directory / "run.log").read_text(encoding="utf-8")
    assert log.count("results: ") == 1

    pd.testing.assert_frame_equal(curves(directory), curves(alone), rtol=1e-4)
    one, two = (pd.read_parquet(path / RECORDS) for path in (alone, directory))
    assert two["example_id"].tolist() == one["example_id"].tolist()
    np.testing.assert_allclose(two["nll"], one["nll"], rtol=1e-4)
    assert (two["hypothesis"] == one["hypothesis"]).mean() > 0.9  # rounding may turn a close choice
    ours, theirs = (read_json(path / SUMMARY) for path in (directory, alone))
    assert ours["devices"] == 2
    assert ours["best_validation_loss"] == pytest.approx(theirs["best_validation_loss"], rel=1e-4)
    tokens = [summary["tokens_per_second"] * summary["train_seconds"] for summary in (ours, theirs)]
    assert tokens[0] == pytest.approx(tokens[1], rel=0.1)  # all processes' tokens count; the factors are rounded


# Killed runs. To spare the time that torch needs to start, Lightning forks the second process instead of starting it.

LONG = ("model.dropout=0.3", "trainer.max_steps=80", "trainer.val_check_interval=20", "checkpoint_interval=0.1")
fork = multiprocessing.get_context("fork")


def lead(config: dict[str, Any]) -> None:
    """The first process of a run, as the command starts it."""
    forget_launchers()
    run(config)


def fork_instead(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> None:
    class Fork:
        """As much of ``subprocess.Popen`` as Lightning and we use."""

        def __init__(self, command: list[str], *, env: dict[str, str], cwd: str | None) -> None:
            self._process = fork.Process(target=self._run, args=(env,))
            self._process.start()
            self.pid, self.wait, self.poll = self._process.pid, self._process.join, lambda: None
            self.returncode = None

        def _run(self, env: dict[str, str]) -> None:
            os.environ.update(env)
            run(config)

        def send_signal(self, number: int) -> None:
            os.kill(self._process.pid or 0, number)

    monkeypatch.setattr(subprocess_script, "subprocess", SimpleNamespace(Popen=Fork))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, to be quick")
def test_killed_on_two_processes(composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed and interrupted on its way, dropout and all: the numbers of the run that nobody touched, bit for bit."""
    config = composed(*TINY, *TWO, "decoder=bahdanau", *LONG)
    draw = random.Random(3)

    def carry_out(runs: str, *, number: int | None = None) -> tuple[int | None, Path]:
        """Carry out the run, or what is left of it; send the signal some time in training."""
        mine = config | {"runs_dir": str(tmp_path / runs)}
        fork_instead(monkeypatch, mine)
        alive, theirs = os.pipe()
        process = fork.Process(target=lead, args=(mine,))
        process.start()
        os.close(theirs)
        if number is not None:
            while not any(_trains(path.parent, process.pid) for path in (tmp_path / runs).rglob(STATUS)):
                assert process.is_alive()
                time.sleep(0.01)
            time.sleep(draw.uniform(0.0, 0.5))
            os.kill(process.pid or 0, number)
        assert select.select([alive], [], [], 300)[0], "a process stayed behind"  # the last to have it has gone
        os.close(alive)
        process.join()
        (directory,) = (path.parent for path in (tmp_path / runs).rglob(STATUS))
        return process.exitcode, directory

    assert carry_out("killed", number=signal.SIGKILL)[0] == -signal.SIGKILL
    code, directory = carry_out("killed", number=signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert read_json(directory / STATUS)["state"] == INTERRUPTED
    assert carry_out("killed", number=signal.SIGKILL)[0] == -signal.SIGKILL
    assert not is_finished(directory)
    assert carry_out("killed")[0] == 0
    code, whole = carry_out("whole")
    assert code == 0
    assert_same(directory, whole)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, to be quick")
def test_killed_in_the_test_on_two_processes(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each process has decoded is not decoded again: a hypothesis changed where it was kept is the result's."""
    small = ("data.test_size=400", "loader.evaluation_batch_tokens=16", "checkpoint_interval=0", "trainer.max_steps=5")
    config = composed(*TINY, *TWO, "decoder=bahdanau", *small, f"runs_dir={tmp_path}")
    fork_instead(monkeypatch, config)
    alive, theirs = os.pipe()
    process = fork.Process(target=lead, args=(config,))
    process.start()
    os.close(theirs)
    while len(kept := list(tmp_path.rglob("tested-?-of-2.ckpt"))) < 2:
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    assert select.select([alive], [], [], 60)[0], "a process stayed behind"
    (directory,) = (path.parent for path in tmp_path.rglob(STATUS))
    changed = {}
    for path in kept:
        content = read_checkpoint(path)
        row, record = next(iter(content["state_dict"]["records"].items()))
        record["hypothesis"] = changed[row] = f"kept in {path.name}"
        torch.save(content, path)
    fork_instead(monkeypatch, config)
    process = fork.Process(target=lead, args=(config,))
    process.start()
    process.join()
    assert process.exitcode == 0
    records = pd.read_parquet(directory / RECORDS)
    assert len(records) == 400
    assert len(changed) == 2
    assert {row: records["hypothesis"][row] for row in changed} == changed
    assert not list(tmp_path.rglob("tested-*"))


def _trains(directory: Path, pid: int | None) -> bool:
    status = read_status(directory)
    return status is not None and status.pid == pid and status.phase == TRAINING
