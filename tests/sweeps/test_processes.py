"""Jobs side by side in real processes, which fail in every way there is. They hold no model, so they take no time."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from attnspan.cli.train import main
from attnspan.runs.layout import LOCK, LOG
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
    is_locked,
    load_status,
    read_status,
)
from attnspan.sweeps import job_process, processes, queue
from attnspan.sweeps.job import NOT_STARTED, RUNNING_ELSEWHERE, SKIPPED, Job, SweepOptions
from attnspan.sweeps.outcomes import print_outcomes
from attnspan.sweeps.plan import Plan, print_plan
from attnspan.sweeps.processes import run_jobs
from tests.conftest import TINY
from tests.stub_run import stub_job, write_results
from tests.stub_train import stubs

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where the stub is


def job(root: Path, name: str, *words: object) -> Job:
    return stub_job(root / name, *words, varied=name)


def run(jobs: Sequence[Job], *, n_jobs: int = 2, rerun: bool = False, fail_fast: bool = False) -> str:
    """Run the jobs as a sweep does, and return what it printed."""
    out = io.StringIO()
    console = Console(file=out, width=10_000)
    queue.enqueue(jobs, rerun=rerun)
    try:
        run_jobs(jobs, SweepOptions(n_jobs=n_jobs, threads=1, rerun=rerun, fail_fast=fail_fast), console)
    finally:
        queue.resolve_outcomes(jobs)
        print_outcomes(console, jobs)
    return out.getvalue()


def computed(one: Job) -> int:
    """How often the run was computed."""
    path = one.directory.with_name(f"{one.directory.name}.computed")
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def test_every_failure_stays_where_it_is(tmp_path: Path) -> None:
    ways = ("killed", "exit", "memory", "fail", "good")
    jobs = [job(tmp_path, way, way) for way in ways]
    shown = run(jobs)
    reasons = {one.varied: one.reason for one in jobs if one.outcome == FAILED}
    assert list(reasons) == ["killed", "exit", "memory", "fail"]
    assert reasons["killed"] == "killed (out of memory?)"
    assert reasons["exit"] == "exit code 3"
    assert "MemoryError" in reasons["memory"]
    assert reasons["fail"] == "it had to be"
    assert jobs[-1].outcome == FINISHED
    for one in jobs:
        (line,) = (line for line in shown.splitlines() if f" {one.varied} " in line and f" {one.outcome} " in line)
        assert one.reason in line
        assert str(one.directory / LOG) in shown
        status = load_status(one.directory)
        assert status.state == current_status(one.directory).state == one.outcome
        assert (status.reason or "") == one.reason
    assert load_status(jobs[3].directory).traceback == "Traceback ..."


def test_a_signal_without_a_name(tmp_path: Path) -> None:
    one = job(tmp_path, "one", "realtime")
    run([one])
    assert (one.outcome, one.reason) == (FAILED, f"killed by signal {signal.SIGRTMIN + 6}")


@pytest.mark.parametrize(
    ("what", "outcome", "reason"),
    [("asked", INTERRUPTED, "by SIGTERM"), ("good, asked", FINISHED, ""), ("fail, asked", FAILED, "it had to be")],
)
def test_asked_to_stop_while_it_does_not_listen(tmp_path: Path, what: str, outcome: str, reason: str) -> None:
    """Neither before its signal handlers are installed nor after they are removed is it a failure."""
    one = job(tmp_path, "one", what)
    run([one])
    assert (one.outcome, one.reason) == (outcome, reason)
    assert current_status(one.directory).state == outcome


def test_a_command_that_cannot_start(tmp_path: Path) -> None:
    bad, good = job(tmp_path, "bad"), job(tmp_path, "good", "good")
    bad.arguments = ["/no/such/command"]
    run([bad, good])
    assert (bad.outcome, good.outcome) == (FAILED, FINISHED)
    assert "cannot be written" not in bad.reason
    assert "No such file" in bad.reason


def test_all_jobs_are_queued_first(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "a", "good"), job(tmp_path, "b", "good")]
    queue.enqueue(jobs, rerun=False)
    for one in jobs:
        status = current_status(one.directory)
        assert (status.state, status.arm, status.data, status.seed, status.updates) == (
            QUEUED,
            "plain",
            "reverse",
            1,
            20,
        )


STOPPED = Status(state=INTERRUPTED, reason="by SIGTERM", update=7, updates=20, loss=1.5, seconds=9.0)
BROKEN = Status(state=FAILED, reason="the loss is nan", traceback="Traceback ...", update=8, updates=20, loss=2.5)


@pytest.mark.parametrize("before", [STOPPED, BROKEN])
def test_what_a_run_had_reached_is_kept(tmp_path: Path, before: Status) -> None:
    """Through the queue, and back when the sweep ends before the run begins; a start keeps what it goes on from."""
    one = job(tmp_path, "one", "good")

    def ends_as_before(status: Status) -> bool:
        names = ("state", "previous_state", "reason", "traceback", "update", "updates", "loss", "seconds")
        return all(getattr(status, name) == getattr(before, name) for name in names)

    before.write(one.directory)
    queue.enqueue([one], rerun=False)
    queued = load_status(one.directory)
    assert (queued.state, queued.previous_state, queued.update, queued.loss) == (
        QUEUED,
        before.state,
        before.update,
        before.loss,
    )
    assert ends_as_before(look_when_its_sweep_is_gone(one))
    queue.enqueue([one], rerun=False)  # twice is like once
    queue.resolve_outcomes([one])
    assert (one.outcome, one.reason) == (NOT_STARTED, "")
    assert ends_as_before(current_status(one.directory))
    queue.enqueue([one], rerun=False)
    one.arguments = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert job_process.start(one, 1)
    started = current_status(one.directory)
    assert (started.state, started.phase, started.update, started.loss) == (
        RUNNING,
        STARTING,
        before.update,
        before.loss,
    )
    assert started.reason is None
    job_process.stop([one])


def look_when_its_sweep_is_gone(one: Job) -> Status:
    status = load_status(one.directory)
    replace(status, process_start="another process").write(one.directory)
    seen = current_status(one.directory)
    status.write(one.directory)
    return seen


def test_a_dry_run_counts_what_is_done(tmp_path: Path) -> None:
    """Also after a sweep that had the run on its list, and was killed before it began."""
    done, half = job(tmp_path / "reverse" / "plain", "done"), job(tmp_path / "reverse" / "plain", "half")
    write_results(done.directory, seconds=100.0, updates=20)
    replace(STOPPED, update=15).write(half.directory)
    queue.enqueue([half], rerun=False)
    out = io.StringIO()
    plan = Plan(jobs=[done, half], settings={"runs_dir": str(tmp_path), "rerun": False}, n_jobs=1)
    print_plan(Console(file=out, width=10_000), plan)
    row = next(line for line in out.getvalue().splitlines() if line.startswith("half"))
    assert row.split()[-2:] == [QUEUED, "00:25"]
    assert out.getvalue().rstrip().endswith("in about 00:25 with 1 at once; judged by finished runs on Test Processor")


def test_what_is_to_be_computed_again_is_queued(tmp_path: Path) -> None:
    one = job(tmp_path, "one", "good")
    write_results(one.directory)
    queue.enqueue([one], rerun=True)
    assert current_status(one.directory).state == QUEUED
    queue.resolve_outcomes([one])
    assert one.outcome == NOT_STARTED
    assert current_status(one.directory).state == FINISHED
    assert load_status(one.directory).state == FINISHED


def test_a_run_on_another_list_stays_there(tmp_path: Path) -> None:
    one = job(tmp_path, "one", "good")
    for age, pid in ((0.0, 1), (1e6, os.getpid())):
        Status(state=QUEUED, host="elsewhere", pid=1).write(one.directory)
        status = one.directory / "status.json"
        heartbeat = load_status(one.directory).heartbeat
        text = status.read_text(encoding="utf-8").replace(repr(heartbeat), repr(heartbeat - age))
        status.write_text(text, encoding="utf-8")
        queue.enqueue([one], rerun=False)
        assert load_status(one.directory).pid == pid


def test_who_comes_second_leaves_the_first_ones_status(tmp_path: Path) -> None:
    """Both saw nobody at work; it is not even for a moment that the loser's process stands in the file."""
    one = job(tmp_path, "one", "good")
    Status(state=RUNNING, phase=TRAINING, update=9).write(one.directory)
    before = (one.directory / "status.json").read_bytes()
    with FileLock(one.directory / LOCK):
        assert job_process.start(one, 1)
        assert (one.directory / "status.json").read_bytes() == before
        job_process.wait(one)
        assert one.outcome == RUNNING_ELSEWHERE
        one.arguments = ["/no/such/command"]
        assert not job_process.start(one, 1)
        assert (one.directory / "status.json").read_bytes() == before
    assert "No such file" in one.reason


def heartbeats(directory: Path, *, state: str, count: int = 3) -> set[float]:
    """Wait until so many heartbeats of a run in that state were seen."""
    seen: set[float] = set()
    deadline = time.monotonic() + 60
    while len(seen) < count:
        assert time.monotonic() < deadline, seen
        status = load_status(directory)
        assert status.state == state
        seen.add(status.heartbeat)
        time.sleep(0.01)
    return seen


def test_what_waits_has_a_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_RENEWAL_INTERVAL", 0.05)
    one, theirs, begun = (job(tmp_path, name) for name in ("one", "theirs", "begun"))
    queue.enqueue([one, begun], rerun=False)
    Status(state=QUEUED, host="elsewhere").write(theirs.directory)
    with queue.queue_heartbeats([one, theirs, begun]), FileLock(begun.directory / LOCK):
        still = [load_status(other.directory).heartbeat for other in (theirs, begun)]
        heartbeats(one.directory, state=QUEUED)
        assert [load_status(other.directory).heartbeat for other in (theirs, begun)] == still
    last = load_status(one.directory).heartbeat
    time.sleep(0.2)
    assert load_status(one.directory).heartbeat == last


def test_a_sweep_keeps_its_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command on: one run at a time, and the one that waits has a heartbeat."""
    words = ("-m", "hydra.launcher.n_jobs=1", "decoder=plain", "seed=1,2", "study=mine", *TINY[:7], "logger=none")
    monkeypatch.setattr(sys, "argv", ["attnspan-train", *words])
    monkeypatch.setattr(queue, "_RENEWAL_INTERVAL", 0.05)
    for name, value in (("ATTNSPAN_CACHE", "cache"), ("PYTHONPATH", str(ROOT)), ("STUB_SECONDS", "3")):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    seen: set[float] = set()

    def watch() -> None:
        listed = tmp_path / "runs" / "mine.txt"
        while not listed.exists():
            time.sleep(0.02)
        first, second = (tmp_path / line for line in listed.read_text(encoding="utf-8").split())
        while not (first / "status.json").exists() or current_status(first).phase != TRAINING:
            time.sleep(0.02)
        seen.update(heartbeats(second, state=QUEUED))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    with stubs():
        main()
    thread.join(timeout=1)
    assert len(seen) == 3


@pytest.mark.parametrize("how", ["in a sweep", "alone"])
def test_what_starts_has_a_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Loading torch from a slow disk may take longer than a heart may stand still."""
    monkeypatch.setattr(job_process, "HEARTBEAT_INTERVAL", 0.05)
    one = job(tmp_path, "one")
    one.arguments = [sys.executable, "-c", "import time; time.sleep(60)"]

    def watch() -> None:
        try:
            while not one.directory.exists() or (read_status(one.directory) or Status()).phase != STARTING:
                time.sleep(0.02)
            seen.update(heartbeats(one.directory, state=RUNNING))
        finally:
            assert one.process is not None
            one.process.kill()

    seen: set[float] = set()
    thread = threading.Thread(target=watch)
    thread.start()
    if how == "alone":
        job_process.start(one, 1)
        job_process.wait(one)
    else:
        run([one])
    thread.join()
    assert len(seen) == 3


def test_finished_runs_are_skipped_unless_told(tmp_path: Path) -> None:
    done, new = job(tmp_path, "done", "good"), job(tmp_path, "new", "good")
    write_results(done.directory)
    shown = run([done, new])
    assert (done.outcome, new.outcome) == (SKIPPED, FINISHED)
    assert "finished before, skipped (1 of 2 runs)" in shown
    assert computed(done) == 0
    again = job(tmp_path, "done", "good")
    run([again], rerun=True)
    assert again.outcome == FINISHED
    assert computed(again) == 1


def test_fail_fast(tmp_path: Path) -> None:
    slow, bad, never = (
        job(tmp_path, "slow", "good", 60),
        job(tmp_path, "bad", "fail", 0.5),
        job(tmp_path, "never", "good"),
    )
    began = time.monotonic()
    shown = run([slow, bad, never], fail_fast=True)
    assert time.monotonic() - began < 30
    assert (slow.outcome, bad.outcome, never.outcome) == (INTERRUPTED, FAILED, NOT_STARTED)
    assert load_status(slow.directory).reason == "by SIGTERM"  # it was asked, and could write a checkpoint
    assert current_status(never.directory).state == INTERRUPTED
    assert computed(never) == 0
    assert "fail_fast=true" in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_a_sweep_stops_its_jobs(tmp_path: Path, number: int) -> None:
    slow, never = job(tmp_path, "slow", "good", 60), job(tmp_path, "never", "good")

    def interrupt() -> None:
        while not (status := read_status(slow.directory)) or status.update != 7:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run([slow, never], n_jobs=1)
    assert (slow.outcome, never.outcome) == (INTERRUPTED, NOT_STARTED)
    assert current_status(slow.directory).state == INTERRUPTED
    assert current_status(never.directory).state == INTERRUPTED


def test_what_another_process_is_at_work_on_is_waited_for(tmp_path: Path) -> None:
    """One run that it finishes, one over which it dies; the second is taken up here."""
    others = [job(tmp_path, "a", "good", 2), job(tmp_path, "b", "killed", 2)]
    processes = [subprocess.Popen(one.arguments, cwd=ROOT) for one in others]
    mine = [job(tmp_path, "a", "good"), job(tmp_path, "b", "good"), job(tmp_path, "c", "good")]
    while not all((status := read_status(one.directory)) and status.update == 7 for one in mine[:2]):
        time.sleep(0.02)
    shown = run(mine)
    assert [process.wait() for process in processes] == [0, -signal.SIGKILL]
    assert [one.outcome for one in mine] == [SKIPPED, FINISHED, FINISHED]
    assert f"{RUNNING_ELSEWHERE} in process {processes[0].pid}" in shown
    assert [computed(one) for one in mine] == [1, 2, 1]


def test_two_sweeps_that_start_the_same_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This one did not see the other in time: the lock decides, and who comes second waits until the first is gone."""
    looks = [False]
    monkeypatch.setattr(processes, "is_running", lambda job: looks.pop() if looks else is_locked(job.directory))
    mine = job(tmp_path, "a", "good")
    with subprocess.Popen(job(tmp_path, "a", "good", 600).arguments, cwd=ROOT) as other:

        def end_the_other() -> None:
            while mine.reason != f"running in process {other.pid} on {socket.gethostname()}":
                time.sleep(0.02)
            other.kill()

        while computed(mine) == 0:
            time.sleep(0.02)
        threading.Thread(target=end_the_other, daemon=True).start()
        monkeypatch.setattr(queue, "enqueue", lambda jobs, rerun: None)
        run([mine])
    assert mine.process is not None
    assert mine.outcome == FINISHED
    assert computed(mine) == 2


def test_the_log_of_every_job_can_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = job(tmp_path, "good", "good")
    monkeypatch.setattr(Path, "cwd", staticmethod(lambda: tmp_path))
    assert "good/run.log" in run([one])
    assert str(tmp_path) not in run([one])
