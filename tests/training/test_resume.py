"""Runs that are killed and go on: the same numbers, bit for bit, as one that nobody touched."""

from __future__ import annotations

import errno
import os
import pickle
import random
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from attnspan.config.identity import run_directory
from attnspan.config.instantiate import build_corpus
from attnspan.data.pipeline.prepare import prepare
from attnspan.errors import InputError, Interrupted
from attnspan.files import read_json
from attnspan.runs.checkpoint_file import read_checkpoint
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    LAST,
    LOCK,
    METRICS,
    PREVIOUS,
    RECORDS,
    STATUS,
    SUMMARY,
    UNUSABLE,
)
from attnspan.runs.status import FAILED, INTERRUPTED, TESTING, TRAINING, read_status
from attnspan.training.callbacks.checkpoints import Checkpoints
from attnspan.training.callbacks.progress import ProgressReporter
from attnspan.training.resuming import find_resume_point
from attnspan.training.run import execute
from attnspan.training.signals import Stop
from tests.commands import Command
from tests.conftest import TINY, Compose
from tests.kills import assert_same

DROPOUT = ("decoder=bahdanau", "model.dropout=0.3", "trainer.val_check_interval=4", "trainer.log_every_n_steps=3")
"""A run of 20 updates over epochs of 7 batches, in which nothing coincides: validations, logs, epochs."""


class KilledError(Exception):
    pass


def run(config: dict[str, Any], *, once: bool = False) -> tuple[Path, list[str]]:
    """Carry out the run, again and again until it is not killed any more; says what was said."""
    prepared = prepare(build_corpus(config), cache_dir=Path(config["cache_dir"]))
    directory, said = run_directory(config, data_fingerprint=prepared.fingerprint), list[str]()
    for _ in range(100):
        try:
            execute(
                config,
                data=prepared,
                directory=directory,
                command="",
                report=lambda status: None,
                log=said.append,
            )
            break
        except KilledError:
            torch.rand(3)  # the next process would find its generators elsewhere
            if once:
                break
    return directory, said


@pytest.fixture
def die_after_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every checkpoint is the last thing that a process does."""
    save = Checkpoints._save

    def save_and_die(self: Checkpoints, trainer: L.Trainer) -> None:
        save(self, trainer)
        raise KilledError

    monkeypatch.setattr(Checkpoints, "_save", save_and_die)


def die_at(monkeypatch: pytest.MonkeyPatch, *moments: tuple[str, int]) -> list[tuple[str, int]]:
    """Die at these hooks, each when so many updates are done; returns those that are still to come."""
    left = list(moments)

    def dying(hook: str) -> Callable[..., None]:
        before = getattr(ProgressReporter, hook)

        def run_hook(self: ProgressReporter, trainer: L.Trainer, *arguments: Any) -> None:
            before(self, trainer, *arguments)
            if left and left[0] == (hook, trainer.global_step):
                del left[0]
                raise KilledError

        return run_hook

    for hook in {hook for hook, _ in moments}:
        monkeypatch.setattr(ProgressReporter, hook, dying(hook))
    return left


@pytest.fixture(scope="module")
def untouched(composed: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of 20 updates that nobody kills."""
    return run(composed(*TINY, *DROPOUT, f"runs_dir={tmp_path_factory.mktemp('untouched')}"))[0]


@pytest.mark.usefixtures("die_after_saving")
def test_stopped_after_every_update(composed: Compose, untouched: Path, tmp_path: Path) -> None:
    """21 deaths: after each update, an epoch's last and those with a validation among them, and after the training."""
    directory, said = run(composed(*TINY, *DROPOUT, "checkpoint_interval=0", f"runs_dir={tmp_path}"))
    assert said[:-1] == [f"resumes from update {update}" for update in range(1, 20)]
    assert "only the test is left" in said[-1]
    assert_same(directory, untouched)
    whole, parts = (read_json(path / SUMMARY) for path in (untouched, directory))
    tokens = [summary["tokens_per_second"] * summary["train_seconds"] for summary in (whole, parts)]
    assert tokens[1] == pytest.approx(tokens[0], rel=0.1)  # all parts count; the factors are rounded
    assert parts["wall_seconds"] >= parts["train_seconds"] + parts["test_seconds"]


def test_killed_some_time_after_the_checkpoint(
    composed: Compose, untouched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came after the checkpoint is computed again, and stands in metrics.csv once."""
    left = die_at(
        monkeypatch,
        ("on_train_batch_end", 2),  # no checkpoint yet
        ("on_validation_batch_end", 4),
        ("on_train_batch_end", 7),  # an epoch's last
        ("on_validation_batch_end", 12),
        ("on_train_batch_end", 12),  # a validation's update
        ("on_train_batch_end", 15),
        ("on_train_batch_end", 20),
        ("on_test_batch_end", 20),
    )
    _, said = run(composed(*TINY, *DROPOUT, f"runs_dir={tmp_path}"))
    assert not left
    assert [int(line.split()[3].strip(",")) for line in said] == [3, 4, 11, 11, 12, 19, 20]
    (directory,) = (path.parent for path in tmp_path.rglob(SUMMARY))
    assert_same(directory, untouched)


@pytest.mark.usefixtures("die_after_saving")
@pytest.mark.parametrize("selection_metric", ["loss", "sequence_error_rate"])
def test_plateau_and_decay_resume(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selection_metric: str
) -> None:
    unlearning = ("trainer.max_steps=60", "optimizer.lr=1.0", "schedule.warmup_steps=0")
    config = composed(*TINY, *DROPOUT, *unlearning, "plateau.patience=1", f"selection_metric={selection_metric}")
    directory, said = run(config | {"runs_dir": str(tmp_path / "killed"), "checkpoint_interval": 1000})
    monkeypatch.undo()
    whole, _ = run(config | {"runs_dir": str(tmp_path / "whole")})
    assert len(said) > 1
    summary = read_json(whole / SUMMARY)
    assert summary["ended_by"] == "plateau"
    assert summary["plateau_update"] < summary["decay_update"] < summary["updates"] < 60
    assert_same(directory, whole)


@pytest.fixture
def interrupted(composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Path]:
    """The run, killed at update 9 with checkpoints of updates 7 and 8; its config and its directory."""
    config = composed(*TINY, *DROPOUT, "checkpoint_interval=0", f"runs_dir={tmp_path}")
    with monkeypatch.context() as patch:
        die_at(patch, ("on_train_batch_end", 9))
        directory, _ = run(config, once=True)
    return config, directory


@pytest.mark.parametrize("damage", ["cut off", "a bit flipped", "a bomb", "gone"])
def test_the_previous_checkpoint_serves_where_the_last_is_damaged(
    interrupted: tuple[dict[str, Any], Path], untouched: Path, tmp_path: Path, damage: str
) -> None:
    config, directory = interrupted
    last = directory / LAST
    content = bytearray(last.read_bytes())
    if damage == "cut off":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "a bit flipped":
        weights = read_checkpoint(last)["state_dict"]["model.readout.weight"].numpy().tobytes()
        content[content.index(weights) + 10] ^= 4
        last.write_bytes(content)
    elif damage == "a bomb":
        last.write_bytes(pickle.dumps(_Bomb(str(tmp_path / "exploded"))))
    else:
        last.unlink()
    _, said = run(config)
    if damage != "gone":
        assert f"{last}: not a whole checkpoint" in said.pop(0)
    assert said == ["resumes from update 7"]
    assert not (tmp_path / "exploded").exists()
    assert_same(directory, untouched)


def test_begins_anew_where_nothing_is_left_to_go_on(
    interrupted: tuple[dict[str, Any], Path], untouched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be used is kept beside until the run is finished, or asked for anew."""
    config, directory = interrupted
    aside = [(directory / name).with_name(f"{Path(name).name}{UNUSABLE}") for name in (LAST, PREVIOUS)]

    def spoil_and_begin() -> list[str]:
        for name in (LAST, PREVIOUS):
            (directory / name).write_bytes(b"nonsense")
        with monkeypatch.context() as patch:
            die_at(patch, ("on_train_batch_end", 9))
            _, said = run(config, once=True)
        assert [path.read_bytes() for path in aside] == [b"nonsense"] * 2
        return said

    assert len(spoil_and_begin()) == 2
    run(config)
    assert_same(directory, untouched)
    assert not any(path.exists() for path in aside)


def test_rerun_removes_what_was_set_aside(interrupted: tuple[dict[str, Any], Path], untouched: Path) -> None:
    config, directory = interrupted
    (directory / f"{LAST}{UNUSABLE}").write_bytes(b"nonsense")
    run(config | {"rerun": True})
    assert not list((directory / CHECKPOINTS).glob(f"*{UNUSABLE}"))


TROUBLE = {
    "too many open files": ((Path, "read_bytes"), OSError(errno.EMFILE, "Too many open files")),
    "no memory": ((zipfile.ZipFile, "testzip"), MemoryError()),
    "torch has no memory": (
        (torch, "load"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    ),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_with_reading_is_no_damage(
    interrupted: tuple[dict[str, Any], Path], untouched: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """It may pass: nothing is set aside, and the next attempt goes on."""
    config, directory = interrupted
    (place, name), error = TROUBLE[trouble]

    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    before = {path: path.read_bytes() for path in (directory / CHECKPOINTS).iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(place, name, fail)
        with pytest.raises(InputError if isinstance(error, OSError) else type(error)) as raised:
            run(config)
    if isinstance(error, OSError):
        assert str(raised.value) == f"{directory / LAST}: cannot be read (Too many open files)"
    status = read_status(directory)
    assert status is not None
    assert status.state == FAILED
    assert {path: path.read_bytes() for path in (directory / CHECKPOINTS).iterdir()} == before
    assert run(config)[1] == ["resumes from update 8"]
    assert_same(directory, untouched)


@pytest.mark.parametrize("best", ["damaged", "gone", "newer"])
@pytest.mark.parametrize("when", ["in training", "before the test"])
def test_the_best_weights_are_restored(
    composed: Compose, untouched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: str, when: str
) -> None:
    """Each checkpoint alone is enough to go on."""
    config = composed(*TINY, *DROPOUT, f"runs_dir={tmp_path}")
    with monkeypatch.context() as patch:
        die_at(patch, ("on_train_batch_end", 10) if when == "in training" else ("on_test_batch_end", 20))
        directory, _ = run(config, once=True)
    path = directory / BEST
    content = path.read_bytes()
    if best == "damaged":
        path.write_bytes(content[:-10])
    elif best == "gone":
        path.unlink()
    else:
        other = read_checkpoint(path)
        other["state_dict"] = {name: tensor + 1 for name, tensor in other["state_dict"].items()}
        torch.save(other, path)
    _, said = run(config)
    words = {"damaged": f"{path}: not a whole checkpoint", "gone": f"{path}: no such file; it is restored"}
    assert ["restored" in line for line in said] == ([False] if best == "newer" else [True, False])
    if best in words:
        assert words[best] in said[0]
    assert said[-1].startswith("resumes ")
    assert_same(directory, untouched)


def test_a_damaged_config_is_written_anew(interrupted: tuple[dict[str, Any], Path], untouched: Path) -> None:
    """As after a power cut; it does not stand in the way of the other runs of a sweep."""
    config, directory = interrupted
    (directory / CONFIG).write_bytes(b"")
    assert run(config)[1] == ["resumes from update 8"]
    assert_same(directory, untouched)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_stop_in_a_validation(
    composed: Compose, untouched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """It does not wait for the end of a validation, and loses the update before it at most, never the minute before."""
    config = composed(*TINY, *DROPOUT, "loader.evaluation_batch_tokens=64", f"runs_dir={tmp_path}")
    validated = ProgressReporter.on_validation_batch_end
    seen: list[int] = []

    def ask(self: ProgressReporter, trainer: L.Trainer, *arguments: Any, **named: Any) -> None:
        validated(self, trainer, *arguments, **named)
        seen.append(trainer.global_step)
        if seen.count(8) == 1 and trainer.global_step == 8:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(ProgressReporter, "on_validation_batch_end", ask)
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
            run(config)
    assert seen.count(8) < seen.count(4)
    (directory,) = (path.parent for path in tmp_path.rglob(STATUS))
    status = read_status(directory)
    assert status is not None
    assert (status.state, status.reason) == (INTERRUPTED, f"by {number.name}")
    assert run(config)[1][-1] == "resumes from update 7"
    assert_same(directory, run(config | {"runs_dir": str(tmp_path / "whole")})[0])


def test_a_signal_that_was_ignored_stays_so() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = Stop()
        with stop.listening():
            stop.listen()
            os.kill(os.getpid(), signal.SIGHUP)
            stop.check()
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Interrupted):
                stop.check()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("finished", [False, True])
def test_what_was_half_written_is_removed(
    interrupted: tuple[dict[str, Any], Path], untouched: Path, finished: bool
) -> None:
    """By the next attempt, which goes on, or finds the run done."""
    config, directory = interrupted
    if finished:
        run(config)
    half = [directory / f".{name}.abc" for name in (STATUS, SUMMARY, RECORDS)]
    half.append(directory / CHECKPOINTS / ".last.ckpt.abc")
    for path in half:
        path.write_text("{", encoding="utf-8")
    run(config)
    assert not [path for path in half if path.exists()]
    assert_same(directory, untouched)


def test_rerun_begins_anew(interrupted: tuple[dict[str, Any], Path], untouched: Path) -> None:
    config, directory = interrupted
    _, said = run(config | {"rerun": True})
    assert not said
    assert_same(directory, untouched)


def test_a_runs_directory_may_be_moved(
    composed: Compose, interrupted: tuple[dict[str, Any], Path], untouched: Path, tmp_path: Path
) -> None:
    config, directory = interrupted
    moved = tmp_path / "moved" / directory.relative_to(tmp_path)
    moved.parent.mkdir(parents=True)
    directory.rename(moved)
    assert run(config | {"runs_dir": str(tmp_path / "moved")}) == (moved, ["resumes from update 8"])
    assert_same(moved, untouched)


def test_any_flipped_bit_is_found_or_harmless(interrupted: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    path, copy = interrupted[1] / LAST, tmp_path / "copy.ckpt"
    content, whole, draw = path.read_bytes(), repr(read_checkpoint(path)), random.Random(1)
    found = 0
    for _ in range(60):
        flipped = bytearray(content)
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        copy.write_bytes(flipped)
        try:
            assert repr(read_checkpoint(copy)) == whole
        except InputError:
            found += 1
    assert found > 30


def test_checkpoints_hold_plain_things(interrupted: tuple[dict[str, Any], Path]) -> None:
    directory = interrupted[1]
    assert {path.name for path in (directory / CHECKPOINTS).iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    for path in (directory / CHECKPOINTS).iterdir():
        torch.load(path, weights_only=True)
    assert find_resume_point(directory, print) is not None


class _Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


# Real processes, really killed.

REAL = (
    *TINY,
    "decoder=bahdanau",
    "model.dropout=0.3",
    "trainer.max_steps=350",
    "trainer.val_check_interval=50",
    "data.validation_size=1000",
    "data.test_size=1500",
    "loader.evaluation_batch_tokens=512",
)
"""Some seconds of training, validations and a test that take long enough to be hit."""


class Process:
    """A run as its own process, watched through the files of its directory."""

    def __init__(self, *overrides: str, directory: Path, cwd: Path) -> None:
        self.directory = directory
        self.process = Command("attnspan.cli.train", *REAL, *overrides, cwd=cwd, merge=True)

    def is_at(self, phase: str) -> bool:
        status = read_status(self.directory)
        return status is not None and status.pid == self.process.pid and status.phase == phase

    def is_validating(self) -> bool:
        """The row of an update with a validation is written just before the validation."""
        path = self.directory / METRICS
        if not self.is_at(TRAINING) or not path.exists():
            return False
        lines = path.read_text(encoding="utf-8").splitlines()
        if not lines:  # it is being written
            return False
        header, *rows = (line.split(",") for line in lines)
        last = dict(zip(header, rows[-1], strict=False)) if rows else {}
        return bool(last.get("train/loss")) and (int(last["step"]) + 1) % 50 == 0

    def send(self, number: int, when: Callable[[], bool]) -> str:
        """Wait until it is time, send the signal, and return what was printed."""
        while not when():
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.0005)
        self.process.send_signal(number)
        return self.process.communicate()[0]


def test_killed_for_real(composed: Compose, cache: Path, tmp_path: Path) -> None:
    """One run, killed five times and interrupted twice on its way, with and without workers."""
    whole, _ = run(composed(*REAL, f"runs_dir={tmp_path / 'whole'}"))
    directory = tmp_path / "runs" / "reverse" / "bahdanau" / whole.name
    draw = random.Random(5)

    def start(every: float, workers: int = 0) -> Process:
        overrides = (f"checkpoint_interval={every}", f"loader.workers={workers}")
        return Process(*overrides, directory=directory, cwd=tmp_path)

    def some_time_in_training(process: Process) -> Callable[[], bool]:
        def when() -> bool:
            if not process.is_at(TRAINING):
                return False
            time.sleep(draw.uniform(0.0, 0.5))
            return True

        return when

    def writes_a_checkpoint() -> bool:
        return any((directory / CHECKPOINTS).glob(".last.ckpt.*"))

    process = start(1000)  # before the first checkpoint
    process.send(signal.SIGKILL, lambda: process.is_at(TRAINING))
    assert not (directory / LAST).exists()

    process = start(0, workers=2)
    printed = process.send(signal.SIGKILL, writes_a_checkpoint)
    assert "goes on" not in printed

    process = start(0.1, workers=2)
    printed = process.send(signal.SIGTERM, some_time_in_training(process))
    assert process.process.returncode == 143, printed
    assert "Traceback" not in printed
    assert read_json(directory / STATUS)["state"] == "interrupted"
    update = read_checkpoint(directory / LAST)["global_step"]

    process = start(0.1)
    printed = process.send(signal.SIGKILL, process.is_validating)
    assert f"resumes from update {update}" in printed

    process = start(1000, workers=2)
    printed = process.send(signal.SIGINT, some_time_in_training(process))
    assert process.process.returncode == 130, printed
    assert "Traceback" not in printed
    assert read_json(directory / STATUS)["state"] == "interrupted"

    process = start(0.1)
    process.send(signal.SIGKILL, some_time_in_training(process))

    process = start(0.1)
    process.send(signal.SIGKILL, lambda: process.is_at(TESTING))
    assert not is_finished(directory)

    process = start(60, workers=2)
    printed, _ = process.process.communicate()
    assert process.process.returncode == 0, printed
    assert "only the test is left" in printed
    assert_same(directory, whole)
    assert [path.name for path in directory.rglob(".*")] == [LOCK]
