"""Tokenization does not depend on the number of processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attnspan.data.arrow import write_dataset
from attnspan.data.pipeline import tokenize as tokenize_module
from attnspan.data.pipeline.prepare import prepare
from attnspan.data.pipeline.tokenize import TokenizeTask, tokenize
from attnspan.data.tokenizer import Tokenizer
from attnspan.errors import InputError
from tests.data.small_corpora import reverse

ROWS = [{"id": f"test-{n:05d}", "source": "ab" * (1 + n % 7), "target": f"x{n}  y"} for n in range(5300)]


@pytest.fixture
def task(tmp_path: Path) -> TokenizeTask:
    Tokenizer.train("characters", ["ab"]).save(tmp_path / "source.json")
    Tokenizer.train("symbols", ["y"]).save(tmp_path / "target.json")
    rows = list(ROWS)
    rows[4123] = rows[4123] | {"target": " "}
    rows[17] = rows[17] | {"source": ""}
    write_dataset(tmp_path / "test", ["id", "source", "target"], rows)
    return TokenizeTask(
        rows=str(tmp_path / "test"),
        tokenizers={side: str(tmp_path / f"{side}.json") for side in ("source", "target")},
        limits={"source": 12, "target": None},
        too_long_is_bad=False,
    )


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_result_does_not_depend_on_the_number_of_processes(task: TokenizeTask, tmp_path: Path, processes: int) -> None:
    """Six batches of up to a thousand rows: more than there are processes, or fewer."""
    work = tmp_path / "work"
    work.mkdir()
    alone = list(tokenize(task, work, processes=1))
    shared = list(tokenize(task, work, processes=processes))
    assert [(one.rows.to_pylist(), one.dropped, one.bad) for one in shared] == [
        (one.rows.to_pylist(), one.dropped, one.bad) for one in alone
    ]
    assert sum(one.rows.num_rows for one in alone) == 5300 - sum(n % 7 == 6 for n in range(5300)) - 2
    assert list(work.iterdir()) == []


def test_dropped_and_bad_rows_are_reported(task: TokenizeTask, tmp_path: Path) -> None:
    found = list(tokenize(task, tmp_path, processes=1))
    assert [bad for one in found for bad in one.bad] == [
        ("test-00017", "the source has no tokens"),
        ("test-04123", "the target has no tokens"),
    ]
    assert sum(one.dropped for one in found) == sum(n % 7 == 6 for n in range(5300))
    first = found[0].rows.to_pylist()[0]
    assert first == ROWS[0] | {"source_ids": first["source_ids"], "target_ids": first["target_ids"]}
    assert (len(first["source_ids"]), len(first["target_ids"])) == (2, 2)
    strict = TokenizeTask(**(vars(task) | {"too_long_is_bad": True}))
    (name, wrong), *_ = next(iter(tokenize(strict, tmp_path, processes=1))).bad
    assert (name, wrong) == ("test-00006", "the source has 14 tokens, more than data.limits.evaluation.source=12")


def test_several_processes_make_the_same_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    start = tokenize_module._start
    monkeypatch.setattr(tokenize_module, "_start", lambda *args: started.append(args[1]) or start(*args))
    monkeypatch.setattr(tokenize_module, "_available_cores", lambda: 2)
    alone = prepare(reverse(train_size=2500), cache_dir=tmp_path / "one")
    assert started == []
    monkeypatch.setattr(tokenize_module, "ROWS_PER_PROCESS", 1000)
    shared = prepare(reverse(train_size=2500), cache_dir=tmp_path / "two")
    assert started == [0, 1]  # for training only, because the other splits are small
    assert shared.train.to_list() == alone.train.to_list()
    assert shared.test_fingerprint == alone.test_fingerprint


def test_a_failed_process_is_reported_in_one_line(task: TokenizeTask, tmp_path: Path) -> None:
    (tmp_path / "target.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenization process 1 of 2 failed \(.*target\.json: not"):
        list(tokenize(task, tmp_path, processes=2))


def test_processes_end_when_the_program_is_killed(task: TokenizeTask, tmp_path: Path) -> None:
    code = (
        "import sys, json, time; from attnspan.data.pipeline import tokenize as e; from pathlib import Path\n"
        "one = e._start(e.TokenizeTask(**json.loads(sys.argv[1])), 0, 2, Path(sys.argv[2]))\n"
        "print(one.pid, flush=True)\n"
        "time.sleep(60)"
    )
    os.mkfifo(tmp_path / "never")  # opening it for reading blocks until it is opened for writing
    waits = json.dumps(vars(task) | {"rows": str(tmp_path / "never")})
    program = subprocess.Popen([sys.executable, "-c", code, waits, str(tmp_path / "out")], stdout=subprocess.PIPE)
    assert program.stdout is not None
    pid = int(program.stdout.readline())
    time.sleep(1)
    program.send_signal(signal.SIGKILL)
    program.wait()
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("it is still there")
