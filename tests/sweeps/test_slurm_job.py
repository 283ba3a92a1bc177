"""What a job of SLURM's does with signals, and when it is missed; what SLURM would answer is given."""

from __future__ import annotations

import io
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from rich.console import Console

from attnspan.errors import Interrupted
from attnspan.runs.layout import LOCK
from attnspan.runs.status import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    QUEUED,
    RUNNING,
    STARTING,
    TRAINING,
    Status,
    current_status,
    load_status,
    read_status,
)
from attnspan.sweeps import job_process
from attnspan.sweeps.job import NOT_STARTED, RUNNING_ELSEWHERE, SKIPPED, Job, SweepOptions, read_job
from attnspan.sweeps.progress import ProgressDisplay
from attnspan.sweeps.queue import enqueue, resolve_outcomes
from attnspan.sweeps.slurm import array, commands
from attnspan.sweeps.slurm import job as slurm_job
from attnspan.training.signals import Stop
from tests.stub_run import stub_job, write_results

pytest.importorskip("submitit")
from submitit.core.utils import UncompletedJobError

WAITS = [sys.executable, "-c", "import time; time.sleep(60)"]


class PutBackError(Exception):
    """Submitit's handler, which never returns, was called."""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return replace(stub_job(tmp_path / "run", updates=9), arguments=[*WAITS])


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
    stop._record(signal.SIGTERM, None)
    stop._record(signal.SIGTERM, None)
    with pytest.raises(Interrupted):
        stop.check()
    stop._first -= 3
    with pytest.raises(Interrupted):
        stop._record(signal.SIGTERM, None)


class Answers:
    """What ``squeue`` answers, look by look, None where it does not; and ``scontrol`` about a job that is over."""

    def __init__(self, job: Job, monkeypatch: pytest.MonkeyPatch, **record: str) -> None:
        self.out = io.StringIO()
        display = ProgressDisplay(console=Console(file=self.out, width=1000), jobs=1, n_jobs=1)
        self.array = array._Array(display)
        self.array.submitted = {"7": job}
        self.array._logs = {"7": Path("7.err")}
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(commands, "job_record", lambda name: record)

    def __call__(self, queue: dict[str, str] | None, *, reason: str = "None") -> set[str]:
        places = queue if queue is None else {name: commands.QueueEntry(state, reason) for name, state in queue.items()}
        self._monkeypatch.setattr(commands, "queue", lambda: places)
        return self.array.poll()


def test_one_look_without_it_is_not_enough(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is put back may be in no list for a moment, and ``squeue`` may fail for longer."""
    answer = Answers(job, monkeypatch)
    job.status(RUNNING).write(job.directory)
    for queue in ({"7": "RUNNING"}, {}, {"7": "PENDING"}, {}, None, None, None, {"7": "RUNNING"}, {}):
        assert not answer(queue)
    assert answer.array.submitted == {"7": job}
    assert answer({}) == {FAILED}
    assert not answer.array.submitted
    status = read_status(job.directory)
    assert status is not None
    assert status.state == FAILED
    assert "its job is gone" in job.reason


def test_why_a_job_waits_is_said_once(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Answers(job, monkeypatch)
    for reason in ("None", "Resources", "Resources", "Nodes required for job are DOWN", "None"):
        answer({"7": "PENDING", "8": "PENDING"}, reason=reason)
    answer({"7": "RUNNING"}, reason="JobHeldUser")
    assert answer.out.getvalue().splitlines() == [
        "1 of 1 jobs wait in SLURM's queue: Resources",
        "1 of 1 jobs wait in SLURM's queue: Nodes required for job are DOWN",
    ]


def test_what_squeue_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    lines = ("7_0 RUNNING None", "7_1 PENDING Nodes required for job are DOWN", "8 PENDING")
    (tmp_path / "squeue").write_text(f"#!/bin/sh\nprintf '%s\\n' {' '.join(map(repr, lines))}\n", encoding="utf-8")
    (tmp_path / "squeue").chmod(0o755)
    assert commands.queue() == {
        "7_0": ("RUNNING", "None"),
        "7_1": ("PENDING", "Nodes required for job are DOWN"),
        "8": ("PENDING", "None"),
    }


def test_put_back_it_waits_and_was_interrupted(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Answers(job, monkeypatch)
    Status(state=INTERRUPTED, reason="by SIGTERM", update=5, host="a node").write(job.directory)
    with FileLock(job.directory / LOCK):  # it is not gone yet
        answer({"7": "PENDING"})
        assert load_status(job.directory).state == INTERRUPTED
    for _ in range(2):
        answer({"7": "PENDING"})
    status = load_status(job.directory)
    assert (status.state, status.previous_state, status.update, status.slurm_job) == (QUEUED, INTERRUPTED, 5, "7")
    assert status.is_own
    assert answer.out.getvalue().count("requeued by SLURM at update 5") == 1


def test_cancelled_before_it_began_it_is_what_it_was(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a finished run that was to be computed again: of a job that never began SLURM says exit code 0."""
    for before in (FINISHED, FAILED):
        job.outcome = ""
        if before == FINISHED:
            write_results(job.directory)
        else:
            (job.directory / "summary.json").unlink()
            Status(state=FAILED, reason="why").write(job.directory)
        enqueue([job], rerun=True)
        replace(load_status(job.directory), slurm_job="7").write(job.directory)
        answer = Answers(job, monkeypatch, ExitCode="0:0", JobState="CANCELLED")
        assert not answer({})
        assert answer({}) == {NOT_STARTED}
        status = load_status(job.directory)
        assert (status.state, status.previous_state, status.slurm_job) == (before, None, None)


def test_a_run_knows_its_job(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    for environment, name in (
        ({}, None),
        ({"SLURM_JOB_ID": "9"}, "9"),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}, "7_0"),
    ):
        for key in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
            monkeypatch.delenv(key, raising=False)
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        job.arguments = [sys.executable, "-c", ""]
        with pytest.raises(SystemExit):
            slurm_job.RunJob()(job, 1)
        assert load_status(job.directory).slurm_job == name


def test_loading_for_long_it_has_a_heartbeat(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the login node nothing else tells that the run is there."""
    monkeypatch.setattr(job_process, "HEARTBEAT_INTERVAL", 0.0)
    seen: set[float] = set()

    def note(job: Job) -> None:
        job_process.renew_start_heartbeat(job)
        status = load_status(job.directory)
        assert status.phase == STARTING
        seen.add(status.heartbeat)
        if len(seen) == 3:
            assert job.process is not None
            job.process.kill()
            job.process.wait()

    monkeypatch.setattr(slurm_job, "renew_start_heartbeat", note)
    with pytest.raises(SystemExit):
        slurm_job.RunJob()(job, 1)
    assert len(seen) == 3


@pytest.mark.parametrize(("restarts", "finished", "rerun"), [(0, False, True), (1, False, False), (1, True, True)])
def test_a_rerun_that_was_requeued_is_resumed(
    job: Job, monkeypatch: pytest.MonkeyPatch, restarts: int, finished: bool, rerun: bool
) -> None:
    """From the job's file, which each start writes; a finished run is not known to be this job's work."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    job.config, job.arguments = {**job.config, "rerun": True}, [sys.executable, "-c", ""]
    if finished:
        write_results(job.directory)
        slurm_job.RunJob()(job, 1)
    else:
        with pytest.raises(SystemExit):
            slurm_job.RunJob()(job, 1)
    assert read_job(job.directory).config == {**job.config, "rerun": rerun}


class TestWhatAnEarlierCommandHasSubmitted:
    """Its array lives, and it may be gone itself: nothing is submitted twice, and the end is awaited."""

    @pytest.fixture
    def jobs(self, job: Job, tmp_path: Path) -> list[Job]:
        """One that SLURM has, one that a process elsewhere has, one that nobody has."""
        jobs = [replace(job, directory=tmp_path / name, varied=name) for name in ("slurm", "other", "new")]
        Status(state=QUEUED, slurm_job="7_0", process_start="its submitter is gone").write(jobs[0].directory)
        Status(state=RUNNING, phase=TRAINING, host="elsewhere", pid=5).write(jobs[1].directory)
        enqueue(jobs, rerun=False)
        return jobs

    @pytest.fixture
    def submitted(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What is submitted; SLURM does not take it."""
        names: list[str] = []

        def submit(own: array._Array, executor: Any, jobs: list[Job], threads: int) -> None:
            names.extend(job.varied for job in jobs)

        monkeypatch.setattr(array._Array, "submit", submit)
        monkeypatch.setattr(array, "_executor", lambda *arguments: None)
        monkeypatch.setattr(array, "_POLL_INTERVAL", 0.0)
        return names

    def run(self, jobs: list[Job], queues: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> str:
        """Run the jobs; ``squeue`` answers so, and at last for ever."""

        def queue() -> dict[str, commands.QueueEntry]:
            places = queues.pop(0) if len(queues) > 1 else queues[0]
            if not places and (status := read_status(jobs[1].directory)) is not None and status.state == RUNNING:
                write_results(jobs[1].directory)
                Status(state=FINISHED).write(jobs[1].directory)
            return {name: commands.QueueEntry(state) for name, state in places.items()}

        monkeypatch.setattr(commands, "queue", queue)
        out = io.StringIO()
        array.run_array(
            jobs,
            SweepOptions(n_jobs=1, threads=1),
            Console(file=out, width=1000),
            folder="",
            max_num_timeout=1,
            parameters={},
        )
        return out.getvalue()

    def test_it_is_waited_for(self, jobs: list[Job], submitted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        write_results(jobs[0].directory)  # as far as they wait for it, it is finished
        shown = self.run(jobs, [{"7_0": "PENDING"}, {"7_0": "RUNNING"}, {}, {"7_0": "PENDING"}, {}], monkeypatch)
        assert submitted == ["new"]
        assert [job.outcome for job in jobs] == [SKIPPED, SKIPPED, ""]
        assert f"slurm: {RUNNING_ELSEWHERE}, SLURM job 7_0; this sweep waits for it" in shown
        assert f"other: {RUNNING_ELSEWHERE}, process 5 on elsewhere; this sweep waits for it" in shown

    def test_how_it_ended_is_said(self, jobs: list[Job], submitted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        replace(load_status(jobs[0].directory), state=FAILED, reason="why").write(jobs[0].directory)
        self.run(jobs, [{"7_0": "RUNNING"}, {}], monkeypatch)
        assert (jobs[0].outcome, jobs[0].reason) == (FAILED, "why")

    def test_put_back_meanwhile_it_is_not_submitted(
        self, jobs: list[Job], submitted: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Status(state=INTERRUPTED, reason="by SIGTERM", slurm_job="7_0").write(jobs[0].directory)
        enqueue(jobs, rerun=False)
        self.run(jobs, [{"7_0": "PENDING"}, {}], monkeypatch)
        assert submitted == ["new"]
        assert jobs[0].outcome == NOT_STARTED  # as somebody cancelled it
        assert current_status(jobs[0].directory).reason == "by SIGTERM"

    def test_stopped_meanwhile_it_is_left_alone(
        self, jobs: list[Job], submitted: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks = iter(range(3))

        def interrupted(seconds: float) -> None:
            if next(looks) == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr(array, "time", SimpleNamespace(**vars(array.time) | {"sleep": interrupted}))
        with pytest.raises(KeyboardInterrupt):
            self.run(jobs, [{"7_0": "PENDING"}], monkeypatch)
        resolve_outcomes(jobs)
        assert [job.outcome for job in jobs] == [RUNNING_ELSEWHERE, RUNNING_ELSEWHERE, NOT_STARTED]
        assert jobs[0].reason == "SLURM job 7_0"
        assert load_status(jobs[0].directory).state == QUEUED

    def test_it_comes_to_a_run_that_is_under_way(self, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
        """Our own job finds another process at work, and leaves; in the end that has finished the run."""
        Status(state=RUNNING, phase=TRAINING, host="elsewhere", pid=5).write(job.directory)
        answer = Answers(job, monkeypatch, ExitCode="75:0", JobState="FAILED")
        answer({})
        assert answer({}) == {RUNNING_ELSEWHERE}
        assert (answer.array.submitted, answer.array.elsewhere, job.outcome) == ({}, [job], "")
        assert not answer({})
        write_results(job.directory)
        Status(state=FINISHED).write(job.directory)
        assert not answer({})
        assert answer({}) == {SKIPPED}
        assert job.outcome == SKIPPED


def test_what_is_submitted_says_its_job(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as SLURM has it, so that a command after this one knows; unless it has begun already."""
    import submitit

    jobs = [replace(job, directory=tmp_path / name) for name in ("a", "b")]
    enqueue(jobs, rerun=False)
    begun = Status(state=RUNNING, phase=TRAINING, host="a node", slurm_job="7_1")
    begun.write(jobs[1].directory)
    paths = SimpleNamespace(stderr="err")
    made = SimpleNamespace(
        update_parameters=lambda **parameters: None,
        map_array=lambda *columns: [SimpleNamespace(job_id=name, paths=paths) for name in ("7_0", "7_1")],
    )
    monkeypatch.setattr(submitit, "AutoExecutor", lambda *arguments, **how: made)
    display = ProgressDisplay(console=Console(file=io.StringIO()), jobs=2, n_jobs=1)
    array._Array(display).submit(array._executor("", 1, {}), jobs, 1)
    assert [load_status(job.directory).slurm_job for job in jobs] == ["7_0", "7_1"]
    assert load_status(jobs[1].directory) == begun
