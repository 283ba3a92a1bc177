"""Checkpoints: the best model, and all that a run needs to go on, bit for bit, where it was stopped.

``best.ckpt`` holds the weights that did best on validation, by the criterion that the run chose. ``last.ckpt`` holds
weights, optimizer, schedule, place in the data, generators, curves and counters between two updates, and
``previous.ckpt`` the same a while before. ``tested.ckpt`` holds the records of the test so far. All are tensors and
plain types, written whole or not at all.
"""

from __future__ import annotations

import io
import math
import os
import random
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor

from attnspan.callbacks import Cost, Recorder
from attnspan.data.batching import Batch
from attnspan.errors import InputError
from attnspan.ranks import gather, rank
from attnspan.rundir import BEST, LAST, PREVIOUS, TESTED, write_text, write_whole


class Interrupted(BaseException):
    """The run was asked to stop, and has; not a KeyboardInterrupt, because Lightning would exit on that by itself."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Stop:
    """Remembers that SIGINT or SIGTERM came, so that the run can stop between two updates. The second stops at once.

    Of a cluster's job every process gets the signal, and the one that started us passes it on: what comes within
    ``ONE_REQUEST`` seconds is the first one again.

    Args:
        follows: this process stops when rank 0 says so, not by itself.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)
    ONE_REQUEST = 2.0

    def __init__(self, *, follows: bool = False) -> None:
        self.number: int | None = None
        self._first = math.inf
        self._follows = follows
        self._pid = os.getpid()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen for the signals, and let those listen afterwards who did before."""
        before = [(number, signal.getsignal(number)) for number in self.SIGNALS]
        self.listen()
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before:
                    signal.signal(number, handler)

    def listen(self) -> None:
        """Listen again: Lightning puts its own listeners in place when it begins to train or to test."""
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                signal.signal(number, self._note)

    def check(self) -> None:
        """Stop here if a signal came.

        Raises:
            Interrupted: it did.
        """
        if self.number is not None:
            raise Interrupted(self.number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._follows or os.getpid() != self._pid:  # the latter in a worker of a loader: the run itself stops it
            return
        if self.number is None:
            self._first = time.monotonic()
        self.number = number
        if time.monotonic() - self._first > self.ONE_REQUEST:
            raise Interrupted(number)


class Curves(CSVLogger):
    """``metrics.csv``, which can be put back to what it was at a checkpoint."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, name="", version="")

    def content(self) -> str:
        """All that is in the file so far."""
        if rank() != 0:
            return ""
        path = Path(self.experiment.metrics_file_path)
        return path.read_bytes().decode() if path.exists() else ""

    def put_back(self, content: str) -> None:
        """Make the file hold ``content``, and go on behind it."""
        if rank() != 0:
            return
        path = Path(self.experiment.metrics_file_path)
        if content:
            write_text(path, content)
            self.experiment.metrics_keys = content.splitlines()[0].split(",")
        else:
            path.unlink(missing_ok=True)


class WholeFiles(TorchCheckpointIO):
    """Writes Lightning's checkpoint whole or not at all, beside the one before, which stays as ``previous.ckpt``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            InputError: the directory cannot be written (read-only, full).
        """
        last = Path(path)
        write_whole(last, _bytes(checkpoint), keep_old_as=last.with_name(Path(PREVIOUS).name))


class Checkpoints(Checkpoint):
    """Writes the checkpoints, and stops the run between two updates when it is asked to.

    A checkpoint is better than another if its ``validation/<choose_by>`` is lower, or the same with a lower loss: of
    some hundred sequences the same number is wrong at many a validation.

    Args:
        directory: of the run.
        choose_by: ``loss``, or another of the validation's measures that is best where it is least.
        patience: ends the training after so many validations without a better checkpoint; None for never.
        every: seconds after which ``last.ckpt`` is written anew; it is also written after every validation. In the
            test, those after which ``tested.ckpt`` is.
        curves: what was logged, which must go on with the rest.
        stop: tells whether to stop.
        recorder: has the records of the test.
        cost: has the seconds that they took.
    """

    def __init__(
        self,
        *,
        directory: Path,
        choose_by: str,
        patience: int | None,
        every: float,
        curves: Curves,
        stop: Stop,
        recorder: Recorder,
        cost: Cost,
    ) -> None:
        self._directory = directory
        self._criteria = (f"validation/{choose_by}", "validation/loss")
        self._patience = patience
        self._every = every
        self._curves = curves
        self._stop = stop
        self._recorder = recorder
        self._cost = cost
        self.complete = False
        self.best_update: int | None = None
        self.best = (math.inf, math.inf)
        """``choose_by`` and loss of the best checkpoint."""
        self._without_better = 0
        self._saved_update = 0
        self._saved_at = 0.0
        self._validated = False
        self._generators: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """What is to go on with the model."""
        return {
            "complete": self.complete,
            "best_update": self.best_update,
            "best": self.best,
            "without_better": self._without_better,
            "generators": gather(_generators()),
            "curves": self._curves.content(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with ``state``; the generators follow at the first batch, where they were saved too.

        A process that was not there when they were saved, because the run goes on with more of them, keeps its own.
        """
        self.complete = state["complete"]
        self.best_update, self.best = state["best_update"], state["best"]
        self._without_better = state["without_better"]
        self._generators = dict(enumerate(state["generators"])).get(rank())
        self._curves.put_back(state["curves"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._saved_update, self._saved_at = trainer.global_step, time.monotonic()
        self._stop.listen()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Save, if it is time to. The last update, its log and its validation are done, and the next has not begun.

        Raises:
            Interrupted: the run was asked to stop.
        """
        if self._generators is not None:
            _set_generators(self._generators)
            self._generators = None
        if batch_idx % trainer.accumulate_grad_batches:
            return  # half an update: its gradients would be lost
        number = self._stop.number
        due = number is not None or self._validated or time.monotonic() - self._saved_at >= self._every
        due, number = trainer.strategy.broadcast((due, number))  # every process does as rank 0 does
        if due and trainer.global_step > self._saved_update:
            self._save(trainer)
        if number is not None:
            raise Interrupted(number)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Do not let a long validation keep the run from stopping.

        Raises:
            Interrupted: the run was asked to stop.
        """
        self._stop.check()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the weights if none were better; end the training if none have been for too long."""
        self._validated = True
        value, loss = (_number(trainer.callback_metrics[name]) for name in self._criteria)
        if self.best_update is not None and not (value, loss) < self.best:
            self._without_better += 1
            trainer.should_stop |= self._without_better == self._patience
            return
        self.best_update, self.best, self._without_better = trainer.global_step, (value, loss), 0
        if trainer.is_global_zero:
            content = {"state_dict": pl_module.state_dict(), "global_step": self.best_update}
            write_whole(self._directory / BEST, _bytes(content))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save that only the test is left to do."""
        self.complete = True
        self._save(trainer)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen again, and start the clock."""
        self._stop.listen()
        self._saved_at = time.monotonic()

    def on_test_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Save what is decoded, if it is time to. Each of several processes has a part of it: they test as a whole.

        Raises:
            Interrupted: the run was asked to stop.
        """
        due = self._stop.number is not None or time.monotonic() - self._saved_at >= self._every
        if due and self._recorder.rows and trainer.world_size == 1:
            content = {"state_dict": {**self._recorder.decoded(), "test_seconds": self._cost.test_seconds}}
            write_whole(self._directory / TESTED, _bytes(content))
            self._saved_at = time.monotonic()
        self._stop.check()

    def go_on_testing(self, say: Callable[[str], None]) -> None:
        """Take up what was decoded before the run was interrupted, if that was kept and is whole."""
        path = self._directory / TESTED
        if not path.exists():
            return
        try:
            state = read_checkpoint(path)["state_dict"]
            self._recorder.go_on_with(state)
            self._cost.test_seconds = state["test_seconds"]
        except (InputError, KeyError, TypeError) as error:
            say(f"{error if isinstance(error, InputError) else f'{path}: of another version'}; the test begins anew")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take Lightning's counters back to before the batch that it has just fetched.

        Lightning has no hook between two updates: when the next batch starts, that batch already counts as fetched.
        """
        if self.complete:
            return
        loops = checkpoint["loops"]["fit_loop"]
        progress = loops["epoch_loop.batch_progress"]
        progress["is_last_batch"] = False
        progress["total"]["ready"] -= 1
        progress["current"]["ready"] -= 1
        position = {"epoch": trainer.current_epoch, "batch": progress["current"]["ready"]}
        loops["state_dict"]["combined_loader"] = [position]
        if progress["total"]["ready"] % trainer.val_check_batch == 0:
            # Lightning will find that a validation is due, see that it was done, and count the update once more.
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self._directory / LAST)
        self._saved_update, self._saved_at, self._validated = trainer.global_step, time.monotonic(), False


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it can run code, and every byte is checked.

    Raises:
        InputError: it is not there, or not whole.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch reads over a flipped bit in a tensor
        if damaged is not None:
            raise ValueError(f"{damaged} is damaged")
        content = torch.load(path, weights_only=True, map_location="cpu")
        if not isinstance(content, dict) or "state_dict" not in content:
            raise ValueError("it holds no weights")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # zipfile and torch raise many kinds for a file that is no checkpoint
        raise InputError(
            f"{path}: not a whole checkpoint ({(str(error) or type(error).__name__).splitlines()[0]})"
        ) from error
    return content


def find_checkpoint(directory: Path, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """Find the newest whole checkpoint from which the run in ``directory`` can go on, None if there is none.

    Args:
        directory: of the run.
        say: is told of those that cannot be used; damaged ones are removed.
    """
    for name in (LAST, PREVIOUS):
        path = directory / name
        if not path.exists():
            continue
        try:
            content = read_checkpoint(path)
        except InputError as error:
            say(f"{error}; it is removed")
            path.unlink(missing_ok=True)
            continue
        state = content.get("callbacks", {}).get(Checkpoints.__qualname__)
        if state is None:
            say(f"{path}: was written by another version of attnspan, and is not used")
            continue
        try:
            if state["best_update"] is not None:
                read_checkpoint(directory / BEST)
        except InputError as error:
            say(f"{error}; without it the run cannot go on, and begins anew")
            return None
        return path, content
    return None


def _number(value: Tensor) -> float:
    """The value, and infinity for one that is not a number: it is worse than any other."""
    return math.inf if math.isnan(value) else float(value)


def _bytes(content: dict[str, Any]) -> memoryview:
    buffer = io.BytesIO()  # torch does not tell a full disk from other trouble; writing bytes does
    torch.save(content, buffer)
    return buffer.getbuffer()


def _generators() -> dict[str, Any]:
    """States of all global random generators, as plain things."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": [str(kind), keys.tolist(), *(number for number in rest)],  # type: ignore[union-attr]
    }


def _set_generators(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
