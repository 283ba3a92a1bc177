"""One sweep, launched twenty times at the same instant: every run computed by one process at a time, data made once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import LOG
from attnspan.runs.status import FINISHED, current_status
from tests.commands import Command
from tests.conftest import TINY, Compose
from tests.kills import assert_same
from tests.training.test_resume import run

ROOT = Path(__file__).parents[2]
LAUNCHES = 20
SWEEP = ("-m", "decoder=plain", "seed=1,2", "study=mine", *TINY[:7], "logger=none")


def test_twenty_launches_of_one_sweep(tmp_path: Path) -> None:
    """Real processes with real locks; only the runs hold no model."""
    environment = {
        "ATTNSPAN_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": str(ROOT),
        "STUB_LAUNCHES": str(LAUNCHES),
        "STUB_SECONDS": "0.3",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.stub_train", *SWEEP],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    printed = [(tmp_path / f"go.{number}").read_text(encoding="utf-8") for number in range(LAUNCHES)]
    assert done.returncode == 0, done.stderr + "\n".join(printed)
    assert not any("Traceback" in words for words in printed)
    runs = [Path(tmp_path, line) for line in (tmp_path / "runs" / "mine.txt").read_text(encoding="utf-8").split()]
    assert len(runs) == 2
    for directory in runs:
        assert is_finished(directory)
        assert current_status(directory).state == FINISHED
        spans = directory.with_name(f"{directory.name}.computed").read_text(encoding="utf-8").splitlines()
        assert len(spans) == 1, spans  # who came second found it finished
        json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    assert len((tmp_path / "cache" / "prepared").read_text(encoding="utf-8").splitlines()) == 1
    assert not list((tmp_path / "cache").glob(".*.incomplete"))


def test_three_real_launches_of_one_sweep(composed: Compose, tmp_path: Path) -> None:
    """Nothing is a stub: the runs train, each once, and their numbers are those of a run alone."""
    words = ("-m", "decoder=plain", "seed=1,2", "study=mine", *TINY)
    together = [Command("attnspan.cli.train", *words, cwd=tmp_path, merge=True) for _ in range(3)]
    printed = [process.communicate()[0] for process in together]
    assert [process.returncode for process in together] == [0, 0, 0], "\n".join(printed)
    listed = (tmp_path / "runs" / "mine.txt").read_text(encoding="utf-8").split()
    assert len(listed) == 2
    for seed, line in enumerate(listed, start=1):
        directory = tmp_path / line
        alone, _ = run(composed(*TINY, "decoder=plain", f"seed={seed}", f"runs_dir={tmp_path / 'alone'}"))
        assert_same(directory, alone)
        log = (directory / LOG).read_text(encoding="utf-8")
        assert log.count(f"plain seed {seed}: preparing") == 1, log  # printed by the process that has the run's lock
        # Another launch may have started a process by then. If that gets the lock later, it finds the run finished.
        assert log.count("results: ") == 1 + log.count("finished meanwhile, skipped"), log
