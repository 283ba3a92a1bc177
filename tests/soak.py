"""Is anything ever lost? Runs and sweeps, killed again and again by SIGKILL at random moments, against untouched ones.

    python -m tests.soak [kills of runs] [kills of sweeps] [seed] > benchmarks/soak.txt

*Runs* are killed as in ``tests/training/test_kills.py``: of a run a process is started, killed and started again until
the run is done in spite of it. *Sweeps* are the real command; what is killed is one of its runs, the command itself, or
everything at once (which is not a power cut: the system still writes what it holds). Then the same command again, until
it ends well. After every kill that leaves a run without a process, each file that is there must be whole. Every run
that comes out of this must have the weights, the records and the metrics of an untouched one, bit for bit. The first
thing that is not so ends the soak.
"""

from __future__ import annotations

import itertools
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import torch

from attnspan.config.compose import compose_config
from attnspan.runs.completeness import is_finished
from attnspan.runs.status import RUNNING, current_status, read_status
from tests.kills import VICTIM, assert_nothing_is_broken, assert_same, attempt, directory_of, kill_and_go_on

RUNS = (
    ("decoder=plain", "checkpoint_interval=0.05", "loader.workers=1"),
    ("decoder=bahdanau", "checkpoint_interval=0.02"),
    ("decoder=luong_general_feeding", "checkpoint_interval=0.1", "loader.workers=2"),
    ("decoder=luong_local_p", "checkpoint_interval=0", "rnn=lstm"),
)
SWEEP = ("decoder=plain,bahdanau", "seed=1,2", "checkpoint_interval=0.2", "trainer.max_steps=400")


def kill_runs(kills: int, draw: random.Random, place: Path) -> tuple[Counter[str], int]:
    """Kill runs until it has been done so often; returns in which phase, and how many runs were compared."""
    configs = [compose_config(*VICTIM, *overrides) for overrides in RUNS]
    attempt(configs[0] | {"runs_dir": str(place / "none")}, kill_after=0.0)  # whatever is loaded once is loaded now
    killed, rounds, untouched = Counter[str](), itertools.count(), dict[int, tuple[Path, float]]()
    for arm, config in itertools.cycle(enumerate(configs)):
        if arm not in untouched:
            whole = config | {"runs_dir": str(place / f"whole{arm}")}
            _, seconds = attempt(whole)
            untouched[arm] = directory_of(whole), seconds
        reference, seconds = untouched[arm]
        number = next(rounds)
        here = config | {"runs_dir": str(place / f"killed{number}")}
        directory, phases = kill_and_go_on(here, draw, mean=seconds / 6)
        assert_same(directory, reference)
        killed += phases
        print(f"{killed.total()} of {kills} kills, {number + 1} runs the same", file=sys.stderr, flush=True)
        if killed.total() >= kills:
            return killed, number + 1
    raise AssertionError


def launch(runs: Path) -> subprocess.Popen[bytes]:
    """Start the sweep, or what is left of it."""
    overrides = (*VICTIM, *SWEEP, f"runs_dir={runs}")
    runs.parent.mkdir(exist_ok=True)
    log = (runs.parent / f"{runs.name}.log").open("ab")
    command = [sys.executable, "-m", "attnspan.cli.train", "-m", *overrides]
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def at_work(directories: Sequence[Path]) -> list[int]:
    """Processes of the running runs."""
    found = []
    for directory in directories:
        status = read_status(directory)
        if status is not None and current_status(directory).state == RUNNING:
            found.append(status.pid)
    return found


def kill_sweep(kills: int, draw: random.Random, place: Path) -> tuple[Counter[str], int]:
    """Kill sweeps until it has been done so often; returns what of them, and how many runs were compared."""
    began = time.monotonic()
    assert launch(place / "whole").wait() == 0
    mean = (time.monotonic() - began) / 3
    killed, compared = Counter[str](), 0
    for number in itertools.count():
        runs = place / f"killed{number}"
        directories = [runs / path.relative_to(place / "whole") for path in finished(place / "whole")]
        for _ in range(100):
            sweep = launch(runs)
            while sweep.poll() is None and not at_work(directories):
                time.sleep(0.02)
            with suppress(subprocess.TimeoutExpired):
                sweep.wait(draw.expovariate(1 / mean))
            pids = at_work(directories)
            if sweep.returncode == 0:
                break
            if sweep.returncode is not None:  # one of its runs was killed and it said so: the same command again
                continue
            what = draw.choice(("a run", "the command", "all at once"))
            victims = {"a run": pids[:1], "the command": [sweep.pid], "all at once": [sweep.pid, *pids]}[what]
            for pid in victims:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if victims:
                killed[what] += 1
            sweep.wait()  # when one of its runs was killed, the others go on
            for directory in directories:
                if what == "all at once" and not is_finished(directory) and not at_work([directory]):
                    assert_nothing_is_broken(directory)
        else:
            raise AssertionError(f"{runs}: not done after {dict(killed)}")
        assert finished(runs) == directories
        for directory in directories:
            assert_same(directory, place / "whole" / directory.relative_to(runs))
        compared += len(directories)
        print(f"{killed.total()} of {kills} kills of sweeps, {compared} runs the same", file=sys.stderr, flush=True)
        if killed.total() >= kills:
            return killed, compared
    raise AssertionError


def finished(runs: Path) -> list[Path]:
    """Directories of the finished runs."""
    return sorted(path.parent for path in runs.rglob("summary.json") if is_finished(path.parent))


def print_counts(killed: Counter[str], what: str) -> None:
    """A line each."""
    for name, count in killed.most_common():
        print(f"{count:6}  {what} {name}")


def main() -> None:
    """Kill, compare and print."""
    given = [int(word) for word in sys.argv[1:]]
    of_runs, of_sweeps, seed = (*given, *(200, 20, 1)[len(given) :])
    draw = random.Random(seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        os.environ["ATTNSPAN_CACHE"] = str(Path(place, "cache"))
        phases, runs = kill_runs(of_runs, draw, Path(place, "runs"))
        kinds, swept = kill_sweep(of_sweeps, draw, Path(place, "sweeps"))
    versions = f"python {platform.python_version()}, torch {torch.__version__}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.platform()}, {versions}, seed {seed}")
    print(f"{(time.monotonic() - began) / 60:.0f} minutes")
    print()
    print(f"{phases.total():6}  kills of runs")
    print_counts(phases, "    while")
    print(f"{kinds.total():6}  kills of sweeps")
    print_counts(kinds, "    of")
    print(f"{runs + swept:6}  runs done in spite of it: weights, records and metrics of the untouched one, bit for bit")


if __name__ == "__main__":
    main()
