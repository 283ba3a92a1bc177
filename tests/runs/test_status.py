"""States that are true: what is written, what is read, and what is made of a process that is gone."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from filelock import FileLock

from attnspan.errors import InputError
from attnspan.files import read_json, write_json
from attnspan.runs import status as module
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import BEST, FILES, LOCK, NEEDED, STATUS, SUMMARY
from attnspan.runs.status import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    QUEUED,
    RUNNING,
    STARTING,
    TRAINING,
    Status,
    StatusWriter,
    current_status,
    is_locked,
    load_status,
    process_start_time,
    read_status,
    update_status,
)
from tests.stub_run import write_results


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def write(directory: Path, **content: object) -> None:
    """A status as somebody else wrote it."""
    directory.mkdir(exist_ok=True)
    (directory / STATUS).write_text(json.dumps(asdict(Status()) | content), encoding="utf-8")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    status = Status(state=FAILED, update=3, updates=9, loss=1.5, reason="why", traceback="where", arm="plain", seed=4)
    status.write(tmp_path)
    assert load_status(tmp_path) == status
    assert time.time() - status.heartbeat < 5
    assert (status.host, status.pid) == (socket.gethostname(), os.getpid())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not readable as JSON"),
        ("[]", "not a JSON object"),
        ("{}", "state is None"),
        ('{"state": "bored"}', "state is 'bored'"),
        ('{"state": "running", "pid": "7"}', "pid is '7'"),
        ('{"state": "running", "heartbeat": null}', "heartbeat is None"),
        ('{"state": "running", "updates": 1.5}', "updates is 1.5"),
    ],
)
def test_a_damaged_status_is_named(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / STATUS).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=rf"{re.escape(str(tmp_path / STATUS))}: .*{re.escape(words)}"):
        current_status(tmp_path)
    assert read_status(tmp_path) is None


def test_a_status_of_tomorrow_is_read(tmp_path: Path) -> None:
    write(tmp_path, state=FAILED, mood="good")
    assert current_status(tmp_path).state == FAILED


def test_running_is_who_holds_the_lock(tmp_path: Path) -> None:
    write(tmp_path, state=RUNNING, phase=TRAINING, update=5)
    with FileLock(tmp_path / LOCK):
        assert current_status(tmp_path).state == RUNNING
    gone = current_status(tmp_path)  # this process lives, but it holds no lock: the pid has been given away
    assert (gone.state, gone.phase, gone.reason, gone.update) == (INTERRUPTED, "", "its process is gone", 5)


def test_a_process_that_is_gone_runs_nothing(tmp_path: Path) -> None:
    pid = dead_pid()
    for state in (RUNNING, QUEUED):
        for phase in (TRAINING, STARTING):
            write(tmp_path, state=state, phase=phase, pid=pid)
            assert current_status(tmp_path).state == INTERRUPTED
    for nonsense in (0, -1, 2**70):
        write(tmp_path, state=RUNNING, phase=STARTING, pid=nonsense)
        assert current_status(tmp_path).state == INTERRUPTED


def test_a_process_that_starts_has_no_lock_yet(tmp_path: Path) -> None:
    write(tmp_path, state=RUNNING, phase=STARTING)
    assert current_status(tmp_path).state == RUNNING
    write(tmp_path, state=QUEUED)
    assert current_status(tmp_path).state == QUEUED


WAITING = ({"state": QUEUED}, {"state": RUNNING, "phase": STARTING})
"""What a process says that holds no lock."""


@pytest.mark.parametrize("waits", WAITING)
def test_a_pid_that_was_given_away_runs_nothing(tmp_path: Path, waits: dict[str, str]) -> None:
    """After a reboot, or when the numbers have gone round, it is another process's."""
    boot, _, ticks = (process_start_time(os.getpid()) or "").partition("/")
    for process_start in (f"{boot}/{int(ticks) + 1}", f"another boot/{ticks}"):
        write(tmp_path, **waits, process_start=process_start)
        assert current_status(tmp_path).state == INTERRUPTED
    write(tmp_path, **waits, heartbeat=time.time() - module.HEARTBEAT_TIMEOUT * 2)
    assert current_status(tmp_path).state == waits["state"]  # it is the same process, however long it takes


@pytest.mark.parametrize("waits", WAITING)
def test_where_births_are_not_known_the_heart_must_beat(
    tmp_path: Path, waits: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without /proc, and in files of before; there a pid alone is believed for a while, and not for ever."""
    for kind in ("no /proc", "an old file"):
        if kind == "no /proc":
            monkeypatch.setattr(module, "process_start_time", lambda pid: None)
        for age, state in ((module.HEARTBEAT_TIMEOUT / 2, waits["state"]), (module.HEARTBEAT_TIMEOUT * 2, INTERRUPTED)):
            write(tmp_path, **waits, heartbeat=time.time() - age)
            if kind == "an old file":
                content = read_json(tmp_path / STATUS)
                del content["process_start"]
                write_json(tmp_path / STATUS, content)
            assert current_status(tmp_path).state == state, kind
        monkeypatch.undo()


def test_a_birth_is_read_whatever_a_process_is_called() -> None:
    code = (
        "import os, attnspan.runs.status as s; before = s.process_start_time(os.getpid())\n"
        "open('/proc/self/comm', 'w').write('a) R 1');"
        "print(s.process_start_time(os.getpid()) == before, len(before.split('/')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "2"]
    assert process_start_time(dead_pid()) is None
    assert process_start_time(2**70) is None


@pytest.mark.parametrize("says", [*WAITING, {"state": RUNNING}])
def test_another_host_lives_as_long_as_its_heart_beats(tmp_path: Path, says: dict[str, str]) -> None:
    write(tmp_path, **says, host="elsewhere", heartbeat=time.time() - module.HEARTBEAT_TIMEOUT / 2)
    assert current_status(tmp_path).state == says["state"]
    write(tmp_path, **says, host="elsewhere", heartbeat=time.time() - module.HEARTBEAT_TIMEOUT * 2)
    assert current_status(tmp_path).state == INTERRUPTED


def test_what_somebody_is_at_work_on_is_not_amended(tmp_path: Path) -> None:
    write(tmp_path, state=RUNNING, phase=TRAINING, update=5)
    with FileLock(tmp_path / LOCK):
        assert not update_status(tmp_path, lambda status: Status(state=QUEUED))
    assert load_status(tmp_path).state == RUNNING
    assert update_status(tmp_path, lambda status: None)
    assert load_status(tmp_path).update == 5
    assert update_status(tmp_path / "new", lambda status: Status(state=QUEUED) if status is None else None)
    assert load_status(tmp_path / "new").state == QUEUED
    with pytest.raises(InputError, match="cannot be written"):
        update_status(Path("/proc/attnspan"), lambda status: Status())


def test_what_a_queued_run_was_before(tmp_path: Path) -> None:
    """Its sweep is killed before it begins: what was known of it is known still."""
    write(tmp_path, state=QUEUED, previous_state=FAILED, reason="why", traceback="where", update=5, pid=dead_pid())
    seen = current_status(tmp_path)
    assert (seen.state, seen.previous_state, seen.reason, seen.traceback, seen.update) == (
        FAILED,
        None,
        "why",
        "where",
        5,
    )
    never = Status(state=QUEUED).dequeued("so it is")
    assert (never.state, never.reason) == (INTERRUPTED, "so it is")


def test_finished_and_to_be_computed_again(tmp_path: Path) -> None:
    write_results(tmp_path)
    for waits in WAITING:
        write(tmp_path, **waits, update=20, updates=20)
        seen = current_status(tmp_path)
        assert (seen.state, seen.update) == (waits["state"], 0)
        write(tmp_path, **waits, update=20, pid=dead_pid())
        assert current_status(tmp_path).state == FINISHED


def test_who_started_a_run_says_of_which_job_it_is(tmp_path: Path) -> None:
    for changes, slurm in (({}, "7_1"), ({"pid": dead_pid()}, None), ({"process_start": "another boot/1"}, None)):
        write(tmp_path, **({"state": RUNNING, "phase": STARTING, "slurm_job": "7_1"} | changes))
        with StatusWriter(tmp_path, arm="plain", data="reverse", seed=2, command="attnspan-train seed=2") as writer:
            writer.write(Status(phase=TRAINING))
        told = load_status(tmp_path)
        assert (told.slurm_job, told.command) == (slurm, "attnspan-train seed=2")


def test_asking_for_the_lock_disturbs_nobody_and_writes_nothing(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert not list(tmp_path.iterdir())
    with FileLock(tmp_path / LOCK):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    FileLock(tmp_path / LOCK, timeout=0).acquire().lock.release()


def test_finished_is_what_its_files_say(tmp_path: Path) -> None:
    write_results(tmp_path)
    assert current_status(tmp_path).state == FINISHED  # whatever the status says, even nothing
    write(tmp_path, state=RUNNING, pid=dead_pid())
    assert current_status(tmp_path).state == FINISHED
    write(tmp_path, state=FINISHED)
    for name in (*NEEDED, SUMMARY):
        for content in (b'{"cut": ', b"", None):
            write_results(tmp_path)
            assert is_finished(tmp_path)
            (tmp_path / name).unlink()
            if content is not None:
                (tmp_path / name).write_bytes(content)
            assert not is_finished(tmp_path)
            seen = current_status(tmp_path)
            assert seen.state == INTERRUPTED
            assert seen.reason is not None
            assert seen.reason.startswith("it was finished, and then ")
            assert name in seen.reason


def test_one_bit_makes_a_run_unfinished(tmp_path: Path) -> None:
    """Whoever would skip the run reads its files through; who only shows it looks at their sizes."""
    for name in NEEDED:
        write_results(tmp_path)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
        assert not is_finished(tmp_path)
        assert current_status(tmp_path).state == FINISHED


@pytest.mark.parametrize("name", ["open", "read_text"])
def test_trouble_with_reading_makes_no_run_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Or whoever comes by while too many files are open would throw its results away."""
    write_results(tmp_path)

    def fail(path: Path, *arguments: object, **options: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, name, fail)
        with pytest.raises(InputError, match="Too many open files"):
            is_finished(tmp_path)
    assert is_finished(tmp_path)


def test_a_summary_that_does_not_say_finished(tmp_path: Path) -> None:
    write_results(tmp_path)
    summary = read_json(tmp_path / SUMMARY)
    without_weights = {name: was for name, was in summary[FILES].items() if name != BEST}
    for changed in ({"finished": False}, {FILES: None}, {FILES: []}, {FILES: without_weights}):
        write_json(tmp_path / SUMMARY, summary | changed)
        assert not is_finished(tmp_path)
    write_json(tmp_path / SUMMARY, {})
    assert not is_finished(tmp_path)


def test_the_heart_beats_while_there_is_nothing_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_INTERVAL", 0.02)
    with StatusWriter(tmp_path, arm="plain", data="reverse", seed=2) as writer:
        writer.write(Status(phase=TRAINING, update=5, updates=9, loss=1.5))
        first = load_status(tmp_path).heartbeat
        deadline = time.monotonic() + 60
        while load_status(tmp_path).heartbeat == first:
            assert time.monotonic() < deadline
        writer.write(Status(state=FAILED, reason="why"))
    ended = load_status(tmp_path)
    assert (ended.arm, ended.data, ended.seed) == ("plain", "reverse", 2)
    assert (ended.state, ended.update, ended.updates, ended.loss) == (FAILED, 5, 9, 1.5)  # what it had reached
