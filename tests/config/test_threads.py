"""Threads: what a run keeps busy, looked at from outside, and how many runs there are cores for."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from attnspan.config.threads import POOLS, cores_of, thread_environment
from attnspan.files import read_json
from attnspan.runs.layout import SUMMARY
from attnspan.sweeps import plan
from tests.conftest import TINY, Compose

TICK = os.sysconf("SC_CLK_TCK")
WIDE = ("decoder=bahdanau", "model.hidden_size=256", "loader.workers=1", "trainer.max_steps=8")


def busy(pid: int) -> dict[tuple[int, int], float]:
    """(process, thread) to seconds of computing, of a process and of all below it."""
    found: dict[tuple[int, int], float] = {}
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            words = (task / "stat").read_text().rpartition(")")[2].split()
            found[pid, int(task.name)] = (int(words[11]) + int(words[12])) / TICK
            children = (task / "children").read_text().split()
        except OSError:  # it is gone
            continue
        for child in children:
            found |= busy(int(child))
    return found


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks into /proc")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has no second thread")
def test_a_run_keeps_no_more_threads_busy_than_it_says(tmp_path: Path, cache: Path) -> None:
    """Torch would take all cores for matrices of this size, tokenizers for a corpus, and loader workers come on top."""
    environment = {name: value for name, value in os.environ.items() if name not in POOLS}
    process = subprocess.Popen(
        [sys.executable, "-m", "attnspan.cli.train", *TINY, *WIDE],
        cwd=tmp_path,
        env=environment | {"ATTNSPAN_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
    )
    seconds: dict[tuple[int, int], float] = {}
    while process.poll() is None:
        seconds |= busy(process.pid)
        time.sleep(0.05)
    assert process.returncode == 0
    (summary,) = tmp_path.rglob(SUMMARY)
    assert read_json(summary)["threads"] == 1
    main = seconds.pop((process.pid, process.pid))
    others = sum(took for (owner, _), took in seconds.items() if owner == process.pid)
    assert others < 0.1 * main, (main, seconds)
    for worker in {owner for owner, _ in seconds if owner != process.pid}:
        beside = [took for (owner, thread), took in seconds.items() if owner == worker and thread != worker]
        assert sum(beside) < 0.2, (worker, seconds)


def test_every_pool_is_told() -> None:
    code = "import pyarrow, torch; print(pyarrow.cpu_count(), torch.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | thread_environment(1), capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "1"], done.stderr


def test_there_are_cores_for_so_many(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for words, cores, most in (
        ((), 1, 8),
        (("threads=2",), 2, 4),
        (("threads=3",), 3, 2),
        (("loader.workers=1",), 2, 4),
        (("threads=2", "loader.workers=1", "trainer.devices=2", "trainer.strategy=ddp"), 6, 1),
        (("loader.workers=20",), 21, 1),
    ):
        config = composed("trainer.accelerator=cpu", *words)
        assert (cores_of(config), plan._side_by_side(config)) == (cores, most), words


@pytest.mark.parametrize(("asked", "given"), [(None, 4), (1, 1), (4, 4), (5, 4), (100, 4)])
def test_no_more_at_a_time_than_there_are_cores_for(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: int | None, given: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(plan, "refuse_unfit", lambda configs: [])
    out = io.StringIO()
    config = composed(*TINY, "loader.workers=1", f"runs_dir={tmp_path}")
    made = plan.make_plan([config], [[]], config_directory=None, n_jobs=asked, console=Console(file=out, width=200))
    assert made.n_jobs == given
    assert (f"n_jobs={asked}: only 4 at once" in out.getvalue()) == (asked is not None and asked > 4)


TRAIN = """
import hashlib
import torch
torch.set_num_threads(2)
from torch.nn import functional as F
from attnspan.config.compose import compose_config
from attnspan.config.instantiate import assemble_model
from attnspan.kernels.backend import numba_is_available
assert numba_is_available()
torch.manual_seed(0)
config = compose_config("decoder=bahdanau", "model.hidden_size=48", "model.embedding_size=24")
model = assemble_model(config, source_vocabulary_size=20, target_vocabulary_size=20)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
source, target = torch.randint(4, 20, (16, 23)), torch.randint(4, 20, (16, 19))
for _ in range(5):
    optimizer.zero_grad()
    logits, _ = model(source, torch.full((16,), 23), target)
    F.cross_entropy(logits.flatten(0, 1), target.flatten()).backward()
    optimizer.step()
print(hashlib.sha256(b"".join(part.detach().numpy().tobytes() for part in model.parameters())).hexdigest())
"""


def test_kernels_give_the_same_bits_whether_just_compiled_or_loaded(tmp_path: Path) -> None:
    """With two threads: the first process compiles them, the second takes them from numba's cache."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment |= {"NUMBA_CACHE_DIR": str(tmp_path)}
    hashes = [
        subprocess.run(
            [sys.executable, "-c", TRAIN], env=environment, capture_output=True, text=True, check=True, timeout=240
        ).stdout
        for _ in range(2)
    ]
    assert list(tmp_path.rglob("*.nbc"))
    assert hashes[0] == hashes[1] != ""
