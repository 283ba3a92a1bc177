"""What a job of SLURM's does with signals, and when it is missed; what SLURM would answer is given."""

from __future__ import annotations

import io
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from attnspan import slurm, slurm_job
from attnspan.progress import ProgressDisplay
from attnspan.status import FAILED, INTERRUPTED, RUNNING, read_status
from attnspan.stopping import Interrupted, Stop
from attnspan.sweep import Job

pytest.importorskip("submitit")
from submitit.core.utils import UncompletedJobError

WAITS = [sys.executable, "-c", "import time; time.sleep(60)"]


class PutBackError(Exception):
    """Submitit's handler, which never returns, was called."""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(
        arm="plain", data="reverse", seed=1, updates=9, directory=tmp_path / "run", overrides=(), command=[*WAITS]
    )


@pytest.fixture
def slurm_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make ``scontrol show job`` say that the job is in some state."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")

    def say(state: str) -> None:
        (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho 'JobId=7 JobState={state} Reason=None Restarts=0'\n")
        (tmp_path / "scontrol").chmod(0o755)

    return say


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Have a signal come as soon as the run has started; submitit listens, as it does in a job."""
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
    before = [(number, signal.getsignal(number)) for number in numbers]

    def put_back(number: int, frame: Any) -> None:
        raise PutBackError

    def tell(number: int) -> None:
        start = slurm_job.start

        def start_and_tell(job: Job, threads: int) -> bool:
            started = start(job, threads)
            os.kill(os.getpid(), number)
            return started

        monkeypatch.setattr(slurm_job, "start", start_and_tell)

    signal.signal(signal.SIGUSR2, put_back)
    try:
        yield tell
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def test_what_is_put_back_is_what_was_submitted(
    job: Job, told: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Submitit pickles the arguments of the call once more, behind our back, after we have worked with them."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    submitted = pickle.dumps(job)
    told(signal.SIGUSR2)
    with pytest.raises(PutBackError):
        slurm_job.RunJob()(job, 1)
    assert pickle.dumps(job) == submitted


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "PREEMPTED"])
def test_taken_away_it_is_not_put_back(
    job: Job, told: Callable[[int], None], slurm_says: Callable[[str], None], state: str
) -> None:
    slurm_says(state)
    told(signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        slurm_job.RunJob()(job, 1)
    assert left.value.code == 128 + signal.SIGTERM
    status = read_status(job.directory)
    assert status is not None
    assert status.state == INTERRUPTED


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
def test_told_in_good_time_it_is_put_back(
    job: Job, told: Callable[[int], None], slurm_says: Callable[[str], None], number: int
) -> None:
    slurm_says("RUNNING")
    told(number)
    with pytest.raises(PutBackError):
        slurm_job.RunJob()(job, 1)


def test_out_of_time_too_often_is_one_line(job: Job, told: Callable[[int], None]) -> None:
    def too_often(number: int, frame: Any) -> None:
        raise UncompletedJobError("Job not requeued because: timed-out too many times.")

    told(signal.SIGUSR2)
    signal.signal(signal.SIGUSR2, too_often)
    with pytest.raises(UncompletedJobError):
        slurm_job.RunJob()(job, 1)
    status = read_status(job.directory)
    assert status is not None
    assert (status.state, status.phase) == (INTERRUPTED, "")
    assert status.reason is not None
    assert "too many times" in status.reason
    assert "hydra.launcher.max_num_timeout" in status.reason
    assert "\n" not in status.reason


def test_the_same_request_twice_waits_for_the_update() -> None:
    """SLURM tells every process, and ours passes it on: two signals at once. What comes later is impatience."""
    stop = Stop()
    stop._note(signal.SIGTERM, None)
    stop._note(signal.SIGTERM, None)
    with pytest.raises(Interrupted):
        stop.check()
    stop._first -= 3
    with pytest.raises(Interrupted):
        stop._note(signal.SIGTERM, None)


class Answers:
    """What ``squeue`` answers, look by look; None where it does not."""

    def __init__(self, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tasks = slurm._Tasks()
        self.tasks.left = {"7": job}
        self.tasks._submitted = {"7": SimpleNamespace(paths=SimpleNamespace(stderr="7.err"))}  # type: ignore[dict-item]
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(slurm, "_record", lambda name: {})

    def __call__(self, queue: dict[str, str] | None) -> set[str]:
        self._monkeypatch.setattr(slurm, "_queue", lambda: queue)
        with ProgressDisplay(console=Console(file=io.StringIO()), jobs=1, at_a_time=1) as display:
            return self.tasks.look(display)


def test_one_look_without_it_is_not_enough(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is put back may be in no list for a moment, and ``squeue`` may fail for longer."""
    answer = Answers(job, monkeypatch)
    job.status(RUNNING).write(job.directory)
    for queue in ({"7": "RUNNING"}, {}, {"7": "PENDING"}, {}, None, None, None, {"7": "RUNNING"}, {}):
        assert not answer(queue)
    assert answer.tasks.left == {"7": job}
    assert answer({}) == {FAILED}
    assert not answer.tasks.left
    status = read_status(job.directory)
    assert status is not None
    assert status.state == FAILED
    assert "its job is gone" in job.reason
