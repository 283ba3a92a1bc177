"""A sweep's jobs are what they were when the sweep was launched, whatever is edited while it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from attnspan.errors import InputError
from attnspan.files import read_json
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import CONFIG, JOB, LOG, SUMMARY
from attnspan.runs.status import PREPARING, TRAINING, read_status
from attnspan.sweeps.job import read_job
from tests.conftest import TINY
from tests.stub_run import stub_job

ROOT = Path(__file__).parents[2]
SWEEP = """\
# @package _global_
# Two seeds.
hydra: {mode: MULTIRUN, launcher: {n_jobs: 1}, sweeper: {params: {seed: '1,2'}}}
label_smoothing: 0.25
"""


def edit(path: Path, before: str, after: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert before in content
    path.write_text(content.replace(before, after), encoding="utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the code and of its configs, with a sweep of two seeds; and of one's own, an arm and data."""
    checkout = tmp_path / "checkout"
    for name in ("src", "conf", "sweeps"):
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / "sweeps" / "two.yaml").write_text(SWEEP, encoding="utf-8")
    (tmp_path / "own" / "decoder").mkdir(parents=True)
    shutil.copy(ROOT / "conf" / "decoder" / "plain.yaml", tmp_path / "own" / "decoder" / "mine.yaml")
    for name in ("train", "validation", "test"):
        pairs = "".join(f"{row % 5} {row % 3}\t{row % 3} {row % 5}\n" for row in range(60))
        (tmp_path / f"{name}.tsv").write_text(f"src\ttgt\n{pairs}", encoding="utf-8")
    return checkout


DATA = ["data=files", "data.source=src", "data.target=tgt", "data.source_tokens=symbols", "data.target_tokens=symbols"]
DATA += [f"data.{name}={name}.tsv" for name in ("train", "validation", "test")]
WORDS = [*DATA, *(word for word in TINY if not word.startswith("data"))]


def launch(checkout: Path, cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "attnspan.cli.train", "--config-dir", "own", "sweep=two", "decoder=mine", *WORDS],
        cwd=checkout.parent,
        env=os.environ | {"ATTNSPAN_CACHE": str(cache), "PYTHONPATH": str(checkout / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_the_first(sweep: subprocess.Popen[str], listed: Path) -> list[Path]:
    """Wait until the first run of the sweep has loaded its code, and return the directories of all runs."""
    deadline = time.monotonic() + 120
    while True:
        assert sweep.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
        if listed.exists():
            directories = [listed.parents[1] / line for line in listed.read_text(encoding="utf-8").split()]
            status = read_status(directories[0])
            if status is not None and status.phase in (PREPARING, TRAINING):
                return directories


def test_edits_while_a_sweep_runs_change_no_job(checkout: Path, cache: Path) -> None:
    """Edited between the two jobs: a yaml of ours, the sweep's file, a yaml and data of the user's, and the code."""
    listed = checkout.parent / "runs" / "two.txt"
    edits = (
        (checkout / "conf" / "rnn" / "gru.yaml", "layers: 1", "layers: 2"),
        (checkout / "sweeps" / "two.yaml", "label_smoothing: 0.25", "label_smoothing: 0.5"),
        (checkout.parent / "own" / "decoder" / "mine.yaml", "_target_", "no_such_key"),
        (checkout.parent / "train.tsv", "src\ttgt\n", "src\ttgt\nhiekka\tarena\n"),
        (
            checkout / "src" / "attnspan" / "errors.py",
            "class InputError(Exception):",
            "class InputError(Exception):  # !",
        ),
    )
    with launch(checkout, cache) as sweep:
        directories = wait_for_the_first(sweep, listed)
        for path, before, after in edits:
            edit(path, before, after)
        frozen = read_job(directories[1])
        printed, _ = sweep.communicate(timeout=240)
    assert sweep.returncode == 0, printed
    configs = [yaml.safe_load((path / CONFIG).read_text(encoding="utf-8")) for path in directories]
    assert [config.pop("seed") for config in configs] == [1, 2]
    assert configs[0] == configs[1]
    assert (configs[1]["rnn"]["layers"], configs[1]["label_smoothing"]) == (1, 0.25)
    assert frozen.config == configs[1] | {"seed": 2}
    assert frozen.command.startswith(f"attnspan-train --config-dir {checkout.parent / 'own'} seed=2 sweep=two ")
    assert read_json(directories[1] / SUMMARY)["command"] == frozen.command
    assert sorted(path.parent for path in checkout.parent.rglob(CONFIG)) == sorted(directories)
    assert not list(checkout.parent.rglob(JOB))  # both are finished
    for line in ("the code changed since this sweep was launched: ", "launched: the data is not what it was; the run"):
        assert [line in (path / LOG).read_text(encoding="utf-8") for path in directories] == [False, True]
    one, other = (read_json(path / SUMMARY) for path in directories)
    assert one["data_fingerprint"] == other["data_fingerprint"] == frozen.data_fingerprint
    assert one["examples"] == other["examples"] == {"train": 60, "validation": 60, "test": 60}
    for path, before, after in edits:
        edit(path, after, before)
    with launch(checkout, cache) as sweep:
        printed, _ = sweep.communicate(timeout=240)
    assert printed.count("finished before, skipped") == 2


def test_a_job_whose_file_is_damaged_is_one_line(tmp_path: Path) -> None:
    one = stub_job(tmp_path / "run")
    one.write()
    assert read_job(one.directory).config == one.config
    for text in ("[1, 2]\n", "config: {\n", "command: x\n"):
        (one.directory / JOB).write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"job\.yaml: not readable as a job") as raised:
            read_job(one.directory)
        assert "\n" not in str(raised.value)
    (one.directory / JOB).unlink()
    with pytest.raises(InputError, match=r"job\.yaml: no such file"):
        read_job(one.directory)
    assert not is_finished(one.directory)
