"""Sweeps through a real SLURM: ``make cluster-test`` starts one; without one all of this is skipped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from attnspan.files import read_json
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import LAST, LOG, STATUS
from attnspan.runs.status import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    QUEUED,
    RUNNING,
    TRAINING,
    Status,
    current_status,
    read_status,
)
from tests.conftest import TINY, Compose
from tests.kills import assert_same
from tests.training.test_resume import run

pytest.importorskip("submitit")


if not os.environ.get("ATTNSPAN_CLUSTER_TEST"):  # whoever tests on a login node does not mean to use the cluster
    pytest.skip("make cluster-test starts a SLURM and runs these", allow_module_level=True)

SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.mem_gb=1")
LONG = (
    *TINY,
    "study=mine",
    "decoder=bahdanau",
    "model.dropout=0.3",
    "trainer.max_steps=800",
    "trainer.val_check_interval=100",
)
"""Runs that take some seconds of training."""
ENDLESS = (*TINY, "study=mine", "decoder=plain", "trainer.max_steps=1000000", "trainer.val_check_interval=1000")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "attnspan.cli.train", *words]


class Sweep:
    """A sweep in a process of its own, and the jobs that it has in SLURM."""

    def __init__(self, process: subprocess.Popen[str], cwd: Path) -> None:
        self.process = process
        self.cwd = cwd

    def end(self) -> str:
        """Wait until it is over, and return what it printed."""
        printed, _ = self.process.communicate(timeout=240)
        return printed

    @property
    def directories(self) -> list[Path]:
        return sorted(path.parent for path in self.cwd.rglob(STATUS))

    def directory(self, seed: int) -> Path:
        return next(path for path in self.directories if read_json(path / STATUS)["seed"] == seed)

    def job(self, seed: int) -> str:
        """Its id in SLURM; seeds are in order."""
        listed = (self.cwd / "runs" / "mine.txt").read_text(encoding="utf-8").split()
        at = [(self.cwd / line) for line in listed].index(self.directory(seed))
        (script,) = (self.cwd / "runs" / ".multirun" / "slurm").glob("*/*_submission.sh")
        number = script.name.partition("_")[0]
        return f"{number}_{at}" if len(listed) > 1 else number

    def wait_for(self, seed: int, when: Callable[[Status], bool]) -> Status:
        deadline = time.monotonic() + 120
        while True:
            with_seed = [path for path in self.directories if read_json(path / STATUS)["seed"] == seed]
            status = read_status(with_seed[0]) if with_seed else None
            if status is not None and when(status):
                return status
            assert self.process.poll() is None, self.end()
            assert time.monotonic() < deadline, status
            time.sleep(0.05)


@contextmanager
def sweeping(*words: str, cwd: Path, cache: Path) -> Iterator[Sweep]:
    with subprocess.Popen(
        command(*words),
        cwd=cwd,
        env=os.environ | {"ATTNSPAN_CACHE": str(cache), "COLUMNS": "1000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield Sweep(process, cwd)
        finally:
            if process.poll() is None:
                process.terminate()
                process.communicate(timeout=120)


def scontrol(*words: str) -> str:
    return subprocess.run(["scontrol", *words], capture_output=True, text=True, check=True).stdout


def trains_beyond(update: int) -> Callable[[Status], bool]:
    return lambda status: status.state == RUNNING and status.phase == TRAINING and status.update > update


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


def row(printed: str, seed: int) -> str:
    return next(line for line in reversed(printed.splitlines()) if re.match(rf"\w+ +reverse +{seed} ", line))


def test_the_smoke_sweep_is_an_array(tmp_path: Path, cache: Path) -> None:
    fewer = ("data.train_size=300", "trainer.max_steps=20", "trainer.val_check_interval=10", "logger=none")
    with sweeping("sweep=smoke", *SLURM, *fewer, cwd=tmp_path, cache=cache) as sweep:
        printed = sweep.end()
    assert sweep.process.returncode == 0, printed
    (script,) = tmp_path.rglob("*_submission.sh")
    assert "#SBATCH --array=0-5%" in script.read_text(encoding="utf-8")
    assert "(6 of 6 runs)" in printed
    listed = (tmp_path / "runs" / "smoke.txt").read_text(encoding="utf-8").split()
    assert len(listed) == 6
    for line in listed:
        directory = tmp_path / line
        status = read_status(directory)
        assert is_finished(directory)
        assert status is not None
        assert status.state == FINISHED
        assert "results: " in (directory / LOG).read_text(encoding="utf-8")
        assert read_json(directory / "summary.json")["threads"] == 1
    shown = subprocess.run(
        [sys.executable, "-m", "attnspan.cli.status", "runs", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(shown.stdout)["counts"][FINISHED] == 6
    again = subprocess.run(
        command("sweep=smoke", *SLURM, *fewer), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert again.stdout.count("finished before, skipped") == 6
    assert "submitted" not in again.stdout


def test_preempted_it_goes_on_and_ends_the_same(composed: Compose, tmp_path: Path, cache: Path) -> None:
    """One put back by SLURM, one told by SIGUSR1 that its time is nearly up, one by SIGTERM; and each to the bit."""
    with sweeping("-m", "seed=1,2,3", *LONG, *SLURM, "checkpoint_interval=1000", cwd=tmp_path, cache=cache) as sweep:
        updates = {}
        for seed, *how in (
            (1, "scontrol", "requeue"),
            (2, "scancel", "--signal=USR1"),
            (3, "scancel", "--signal=TERM"),
        ):
            sweep.wait_for(seed, trains_beyond(110))
            subprocess.run([*how, sweep.job(seed)], check=True)
            sweep.wait_for(seed, lambda status: status.state in (INTERRUPTED, QUEUED) and status.update > 110)
            updates[seed] = read_json(sweep.directory(seed) / STATUS)["update"]
        printed = sweep.end()
    assert sweep.process.returncode == 0, printed
    assert printed.count("requeued by SLURM at update") == 3
    for seed in (1, 2, 3):
        directory = sweep.directory(seed)
        (resumed,) = re.findall(r"resumes from update (\d+)", (directory / LOG).read_text(encoding="utf-8"))
        # Where it was stopped, and not at the last validation, for that would be up to 99 updates before.
        assert int(resumed) % 100 or int(resumed) == updates[seed]
        untouched, _ = run(composed(*LONG, f"seed={seed}", f"runs_dir={tmp_path / 'untouched'}"))
        assert_same(directory, untouched)


def test_what_is_killed_or_cancelled_is_missed(tmp_path: Path, cache: Path) -> None:
    """One killed with all its processes, one cancelled, and one whose run alone is killed; then Ctrl-C for the last."""
    with sweeping("-m", "seed=1,2,3,4", *ENDLESS, *SLURM, cwd=tmp_path, cache=cache) as sweep:
        status = sweep.wait_for(1, trains_beyond(0))
        for pid in (parent_of(status.pid), status.pid):  # as when a node fails, nobody can say a word
            os.kill(pid, signal.SIGKILL)
        sweep.wait_for(2, trains_beyond(0))
        subprocess.run(["scancel", sweep.job(2)], check=True)
        status = sweep.wait_for(3, trains_beyond(0))
        os.kill(status.pid, signal.SIGKILL)
        sweep.wait_for(4, trains_beyond(0))
        sweep.wait_for(1, lambda status: status.state == FAILED)
        sweep.process.send_signal(signal.SIGINT)
        printed = sweep.end()
    assert sweep.process.returncode == 130, printed
    assert "its job is gone, and SLURM says FAILED" in row(printed, 1)
    assert " interrupted " in row(printed, 2)
    assert "killed (out of memory?)" in row(printed, 3)
    assert " interrupted " in row(printed, 4)
    assert "by SIGTERM" in row(printed, 4)
    assert (sweep.directory(4) / LAST).exists()
    states = [read_json(sweep.directory(seed) / STATUS)["state"] for seed in (1, 2, 3, 4)]
    assert states == [FAILED, INTERRUPTED, FAILED, INTERRUPTED]
    assert not subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout


def test_submitted_again_it_is_waited_for(tmp_path: Path, cache: Path) -> None:
    """Whoever submitted is killed, the array lives: the same command submits nothing, and ends as all runs end."""
    longer = ("trainer.max_steps=3000", "trainer.val_check_interval=1000")  # than the second command takes to start
    words = ("-m", "seed=1,2,3", *LONG, *longer, *SLURM, "hydra.launcher.array_parallelism=1")
    with sweeping(*words, cwd=tmp_path, cache=cache) as sweep:
        sweep.wait_for(1, trains_beyond(0))
        sweep.process.kill()
        sweep.process.wait()
        waits = read_status(sweep.directory(2))
        assert waits is not None
        assert (waits.state, waits.slurm_job) == (QUEUED, sweep.job(2))
        assert current_status(sweep.directory(2)).state == INTERRUPTED
    with sweeping(*words, cwd=tmp_path, cache=cache) as sweep:
        printed = sweep.end()
        assert len(list(tmp_path.rglob("*_submission.sh"))) == 1
        assert f"SLURM job {sweep.job(2)}; this sweep waits for it" in printed
    assert sweep.process.returncode == 0, printed
    assert "submitted to SLURM" not in printed
    assert "2 of 3 jobs wait in SLURM's queue: JobArrayTaskLimit" in printed
    assert all(is_finished(directory) for directory in sweep.directories)


def test_the_node_has_all_cores() -> None:
    assert f"CPUTot={os.cpu_count()} " in scontrol("--oneliner", "show", "node")


def test_threads_of_a_job_are_its_cpus(tmp_path: Path, cache: Path) -> None:
    few = ("-m", "seed=1", "study=mine", "decoder=plain", *TINY, *SLURM, "threads=2")
    with sweeping(*few, "hydra.launcher.cpus_per_task=1", cwd=tmp_path, cache=cache) as sweep:
        assert "cpus_per_task=1 is less than the threads of a run" in sweep.end()
    assert sweep.process.returncode == 2
    with sweeping(*few, cwd=tmp_path, cache=cache) as sweep:
        printed = sweep.end()
    assert sweep.process.returncode == 0, printed
    assert "NumCPUs=2 " in scontrol("--oneliner", "show", "job", sweep.job(1))
    assert read_json(sweep.directory(1) / "summary.json")["threads"] == 2
    assert yaml.safe_load((sweep.directory(1) / "config.yaml").read_text(encoding="utf-8"))["threads"] == 2


def test_what_slurm_does_not_take_is_one_line(tmp_path: Path, cache: Path) -> None:
    for words, complaint in (
        (("hydra.launcher.partition=nowhere",), "Invalid partition"),
        (
            ("+hydra.launcher.partitoin=main",),
            "hydra.launcher.partitoin: submitit does not know it; did you mean 'partition'?",
        ),
        (("hydra.launcher.timeout_min=1",), "signal_delay_s=90 is not less than"),
    ):
        done = subprocess.run(
            command("-m", "seed=1", "decoder=plain", *TINY, *SLURM, *words),
            cwd=tmp_path,
            env=os.environ | {"ATTNSPAN_CACHE": str(cache)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert complaint in done.stderr.strip().splitlines()[-1]
        assert "Traceback" not in done.stderr
