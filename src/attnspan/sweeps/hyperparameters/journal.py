"""The trials of a search, in a journal: what was tried, what came of it, and what to try next, as optuna chooses.

The journal is a file of optuna's, a line an event, which its own tools can read. A trial in it is

============  =====================================================================================================
``RUNNING``   under way, or left by a search that was stopped: the next one goes on with it
``COMPLETE``  finished, with its loss
``FAIL``      failed, with its reason as ``reason``; tried again by the next search, and a success is written beside it
              as another trial, which names the failed one as ``again``
============  =====================================================================================================

What the next trial is depends on the seed, on its number and on the trials before it, and on nothing that is lost with
the process. So a search that runs one trial at a time, and was killed, goes on to what it would have tried.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from attnspan.errors import InputError, UnderWayError
from attnspan.files import cannot_write
from attnspan.sweeps.hyperparameters.space import Numbers, Space, Words

_NAME = "search"
_AGAIN, _REASON = "again", "reason"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One try.

    Attributes:
        number: counts from 0.
        settings: key to value, as the command line writes them.
        loss: what came of it; None if nothing did, so far.
        reason: why it failed; None if it did not.
    """

    number: int
    settings: dict[str, str]
    loss: float | None = None
    reason: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has a loss."""
        return self.loss is not None


class Journal:
    """The journal of one search, held by this process alone while it is open.

    Args:
        path: of the file; made if it is not there.
        space: what may be tried.
        sampler: makes optuna's sampler from a ``seed``; each trial has a new one.
        seed: of the search.
        anew: forget what it holds.

    Raises:
        UnderWayError: another process has it open.
        InputError: it cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        *,
        space: Space,
        sampler: Callable[..., optuna.samplers.BaseSampler],
        seed: int,
        anew: bool = False,
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
                raise UnderWayError(f"{path}: this search is under way in another process") from error
            if anew:
                path.unlink(missing_ok=True)
            _drop_half_a_line(path)
        try:
            with self._writing():
                self._study = optuna.create_study(
                    storage=_storage(path), study_name=_NAME, direction="minimize", load_if_exists=True
                )
                # Optuna writes a trial before its settings, and a kill may have come between.
                self._open = {trial.number: self._fill(trial) for trial in self._in_state(TrialState.RUNNING)}
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    @property
    def trials(self) -> list[Trial]:
        """All trials, by number; one that failed and then did not, once."""
        return _trials(self._study)

    def ask(self) -> Trial:
        """Begin another trial.

        Raises:
            InputError: the journal cannot be written.
        """
        with self._writing():
            self._study.sampler = self._sampler_of(len(self._study.get_trials(deepcopy=False)))
            trial = self._study.ask(self._space)
        self._open[trial.number] = trial
        return Trial(number=trial.number, settings=_settings(trial.params))

    def finished(self, trial: Trial, loss: float) -> None:
        """Write down what came of a trial, also of one that failed before.

        Raises:
            InputError: the journal cannot be written.
        """
        with self._writing():
            if trial.number in self._open:
                self._study.tell(self._open.pop(trial.number), loss)
                return
            failed = self._study.get_trials(deepcopy=False)[trial.number]
            self._study.add_trial(
                optuna.create_trial(
                    value=loss,
                    params=failed.params,
                    distributions=failed.distributions,
                    user_attrs={_AGAIN: trial.number},
                )
            )

    def failed(self, trial: Trial, reason: str) -> None:
        """Write down that a trial failed.

        Raises:
            InputError: the journal cannot be written.
        """
        if trial.number in self._open:
            with self._writing():
                self._open[trial.number].set_user_attr(_REASON, reason)
                self._study.tell(self._open.pop(trial.number), state=TrialState.FAIL)

    def _fill(self, frozen: FrozenTrial) -> optuna.Trial:
        """Take up a trial; what settings it lacks are those that it would have had."""
        self._study.sampler = self._sampler_of(frozen.number)
        trial = optuna.Trial(self._study, frozen._trial_id)
        for key, distribution in self._space.items():
            trial._suggest(key, distribution)  # as Study.ask does
        return trial

    def _sampler_of(self, number: int) -> optuna.samplers.BaseSampler:
        return self._sampler(seed=int(np.random.SeedSequence(self._seed, spawn_key=(number,)).generate_state(1)[0]))

    def _in_state(self, state: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(state,))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self.path, error) from error
        except (KeyError, ValueError, AssertionError) as error:  # what optuna raises over a line that is no event
            raise InputError(f"{self.path}: not readable as a journal of optuna's ({error})") from error


def read_trials(path: Path) -> list[Trial]:
    """All trials of a journal, by number; none where there is no journal. Nothing is written.

    Raises:
        InputError: it cannot be read.
    """
    if not path.exists():
        return []
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return _trials(optuna.load_study(storage=_storage(path), study_name=_NAME))
    except (KeyError, ValueError, AssertionError, OSError) as error:
        raise InputError(f"{path}: not readable as a journal of optuna's ({error})") from error


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


def _distribution(part: Numbers | Words) -> BaseDistribution:
    if isinstance(part, Words):
        return CategoricalDistribution(part.values)
    if isinstance(part.low, int) and isinstance(part.high, int):
        return IntDistribution(part.low, part.high, log=part.log, step=int(part.step or 1))
    return FloatDistribution(part.low, part.high, log=part.log, step=part.step)


class _Held(JournalFileOpenLock):
    """Optuna's lock, where ours is held already: the system lets go of ours when the process is killed."""

    def acquire(self) -> bool:
        """Take it."""
        return True

    def release(self) -> None:
        """Leave it."""


def _storage(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path), _Held(str(path))))


def _drop_half_a_line(path: Path) -> None:
    """Cut off an event that a full disk, or a kill, left half written: optuna would append to it."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())
