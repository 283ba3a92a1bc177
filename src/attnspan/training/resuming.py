"""From which checkpoint an unfinished run resumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from attnspan.errors import InputError
from attnspan.files import write_atomically
from attnspan.runs.checkpoint_file import DamagedError, read_checkpoint
from attnspan.runs.layout import BEST, LAST, PREVIOUS, UNUSABLE
from attnspan.training.callbacks.checkpoints import Checkpoints
from attnspan.training.metrics_csv import MetricsCsvCheckpoint


@dataclass(frozen=True)
class ResumePoint:
    """A whole checkpoint, and the file that it was read from."""

    path: Path
    checkpoint: dict[str, Any]

    @property
    def update(self) -> int:
        """Updates done."""
        return int(self.checkpoint["global_step"])

    @property
    def is_trained(self) -> bool:
        """Whether only the test is left."""
        return bool(self.state_of(Checkpoints)["complete"])

    @property
    def metrics_csv(self) -> str:
        """The content of ``metrics.csv``."""
        return str(self.state_of(MetricsCsvCheckpoint)["content"])

    def state_of(self, callback: type) -> dict[str, Any]:
        """What a callback has saved; empty if nothing."""
        state: dict[str, Any] = self.checkpoint.get("callbacks", {}).get(callback.__qualname__, {})
        return state

    def restore(self, *callbacks: Callback) -> None:
        """Give callbacks what they have saved; one that was added since, of which there is nothing, stays as it is."""
        for callback in callbacks:
            if state := self.state_of(type(callback)):
                callback.load_state_dict(state)

    def restore_best(self, directory: Path, log: Callable[[str], None]) -> None:
        """Make ``best.ckpt`` what it was when the checkpoint was written: it may be newer, damaged or gone."""
        path = directory / BEST
        content = self.state_of(Checkpoints)["best_file"].numpy().tobytes()
        if not content or (path.exists() and path.read_bytes() == content):
            return
        try:
            read_checkpoint(path)
        except InputError as error:
            log(f"{error}; it is restored")
        write_atomically(path, content)


def find_resume_point(directory: Path, log: Callable[[str], None]) -> ResumePoint | None:
    """Find the newest whole checkpoint from which the run in ``directory`` can resume; None if there is none.

    A checkpoint that cannot be used is set aside, not removed.

    Raises:
        InputError: one cannot be read now, which says nothing about what it holds.
        MemoryError: likewise; torch raises a RuntimeError instead.
    """
    for name in (LAST, PREVIOUS):
        path = directory / name
        if not path.exists():
            continue
        try:
            found = ResumePoint(path, read_checkpoint(path))
        except DamagedError as error:
            why = str(error)
        else:
            if found.state_of(Checkpoints) and found.state_of(MetricsCsvCheckpoint):
                return found
            why = f"{path}: was written by another version of attnspan"
        aside = path.with_name(f"{path.name}{UNUSABLE}")
        path.replace(aside)
        log(f"{why}; it is set aside as {aside.name}")
    return None
