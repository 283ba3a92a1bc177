"""The trials of a search in a journal file, and which trial comes next, as optuna chooses.

The journal is optuna's own: one event per line, readable with optuna's tools. The states of its trials are

============  ====================================================================================================
``RUNNING``   running, or left by a search that was stopped; the next search resumes it
``COMPLETE``  finished, with its loss
``FAIL``      failed, with its ``reason``. The next search retries it, and records a success as another trial, whose
              attribute ``again`` is the number of the failed one
============  ====================================================================================================

The next trial depends only on the seed, its number and the trials before it. So a search that runs one trial at a time
and is killed resumes with the same trials.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from attnspan.errors import AlreadyRunningError, InputError
from attnspan.files import cannot_write
from attnspan.sweeps.hyperparameters.space import Choices, NumberRange, Space

_NAME = "search"
_AGAIN, _REASON = "again", "reason"
_NO_EVENT = (KeyError, ValueError, AssertionError)  # raised by optuna for a line that is no event


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of the space."""

    number: int  # counts from 0
    settings: dict[str, str]  # key to value, as the command line writes them
    loss: float | None = None  # validation loss; None while there is none
    reason: str | None = None  # why it failed; None if it did not


class Journal:
    """The journal of one search. Only one process at a time can have it open.

    Args:
        path: of the file; created if missing.
        space: of the search.
        sampler: makes optuna's sampler from a ``seed``; each trial gets a new one.
        seed: of the search.
        restart: remove the trials in it.

    Raises:
        AlreadyRunningError: another process has it open.
        InputError: it cannot be read or written; every method raises it, too.
    """

    def __init__(
        self,
        path: Path,
        *,
        space: Space,
        sampler: Callable[..., optuna.samplers.BaseSampler],
        seed: int,
        restart: bool = False,
    ) -> None:
        self.path = path
        self._space = {key: _distribution(part) for key, part in space.items()}
        self._sampler = sampler
        self._seed = seed
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout as error:
                raise AlreadyRunningError(f"{path}: this search is running in another process") from error
            if restart:
                path.unlink(missing_ok=True)
            _drop_incomplete_line(path)
        try:
            with self._writing():
                self._study = optuna.create_study(
                    storage=_storage(path), study_name=_NAME, direction="minimize", load_if_exists=True
                )
                # Optuna writes a trial before its settings; it may have been killed in between.
                running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
                self._running = {trial.number: self._complete(trial) for trial in running}
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    @property
    def trials(self) -> list[Trial]:
        """All trials, by number. One that failed and later succeeded appears once."""
        return _trials(self._study)

    def ask(self) -> Trial:
        """Start another trial."""
        with self._writing():
            self._study.sampler = self._sampler_of(len(self._study.get_trials(deepcopy=False)))
            trial = self._study.ask(self._space)
        self._running[trial.number] = trial
        return Trial(number=trial.number, settings=_settings(trial.params))

    def finished(self, trial: Trial, loss: float) -> None:
        """Record the loss of a trial, which may have failed before."""
        with self._writing():
            if trial.number in self._running:
                self._study.tell(self._running.pop(trial.number), loss)
                return
            failed, again = self._study.get_trials(deepcopy=False)[trial.number], {_AGAIN: trial.number}
            self._study.add_trial(
                optuna.create_trial(
                    value=loss, params=failed.params, distributions=failed.distributions, user_attrs=again
                )
            )

    def failed(self, trial: Trial, reason: str) -> None:
        """Record that a trial failed."""
        if trial.number in self._running:
            with self._writing():
                self._running[trial.number].set_user_attr(_REASON, reason)
                self._study.tell(self._running.pop(trial.number), state=TrialState.FAIL)

    def _complete(self, frozen: FrozenTrial) -> optuna.Trial:
        """Resume a trial. Settings that the journal lacks are sampled as they would have been."""
        self._study.sampler = self._sampler_of(frozen.number)
        trial = optuna.Trial(self._study, frozen._trial_id)
        for key, distribution in self._space.items():
            trial._suggest(key, distribution)  # as Study.ask does
        return trial

    def _sampler_of(self, number: int) -> optuna.samplers.BaseSampler:
        return self._sampler(seed=int(np.random.SeedSequence(self._seed, spawn_key=(number,)).generate_state(1)[0]))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self.path, error) from error
        except _NO_EVENT as error:
            raise _unreadable(self.path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: not readable as an optuna journal ({error})")


def read_trials(path: Path) -> list[Trial]:
    """All trials of a journal, by number; none if it is missing. Writes nothing. InputError if it cannot be read."""
    if not path.exists():
        return []
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return _trials(optuna.load_study(storage=_storage(path), study_name=_NAME))
    except (*_NO_EVENT, OSError) as error:
        raise _unreadable(path, error) from error


def _trials(study: optuna.Study) -> list[Trial]:
    found: dict[int, Trial] = {}
    for trial in study.get_trials(deepcopy=False):
        number = trial.user_attrs.get(_AGAIN, trial.number)
        found[number] = Trial(
            number=number,
            settings=_settings(trial.params),
            loss=trial.value if trial.state == TrialState.COMPLETE else None,
            reason=trial.user_attrs.get(_REASON, "") if trial.state == TrialState.FAIL else None,
        )
    return [found[number] for number in sorted(found)]


def _settings(params: dict[str, Any]) -> dict[str, str]:
    return {key: value if isinstance(value, str) else repr(value) for key, value in params.items()}


def _distribution(part: NumberRange | Choices) -> BaseDistribution:
    if isinstance(part, Choices):
        return CategoricalDistribution(part.values)
    if isinstance(part.low, int) and isinstance(part.high, int):
        return IntDistribution(part.low, part.high, log=part.log, step=int(part.step or 1))
    return FloatDistribution(part.low, part.high, log=part.log, step=part.step)


class _NoLock(JournalFileOpenLock):
    """Replaces optuna's lock, which survives a killed process; the journal holds one that the system releases."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _storage(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path), _NoLock(str(path))))


def _drop_incomplete_line(path: Path) -> None:
    """Cut off an event that was only partly written, when the disk was full or the process killed."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())
