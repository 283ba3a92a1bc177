from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnspan.data.corpora.base import Corpus
from attnspan.data.corpora.files import Files
from attnspan.data.pipeline import cache as cache_module
from attnspan.data.pipeline import prepare as prepare_module
from attnspan.data.pipeline.prepare import PreparedData, prepare, prepare_as
from attnspan.data.tokenizer import UNK, Tokenizer
from attnspan.errors import InputError
from tests.data.small_corpora import ANY_LENGTH, reverse

Ready = Callable[[Corpus], PreparedData]


def built(cache: Path) -> list[str]:
    """The caches in ``cache``; nothing else but locks may be left."""
    names = sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock"))
    assert all(len(name) == 64 for name in names), names
    return names


def test_ids_are_those_of_the_tokenizers(prepared: PreparedData) -> None:
    assert prepared.train.column_names[:3] == ["id", "source", "target"]
    assert (prepared.train.num_rows, prepared.validation.num_rows, prepared.test.num_rows) == (500, 40, 60)
    for row in prepared.test:
        assert row["source_ids"] == prepared.source_tokenizer.encode(row["source"])
        assert row["target_ids"] == prepared.target_tokenizer.encode(row["target"])
    assert prepared.training_lengths == prepared.training_target_lengths == (3, 12)
    assert prepared.training_target_ratio == 1.0
    assert prepared.dropped == {"train": 0}


def test_a_second_call_reads_the_cache_and_is_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(reverse(), cache_dir=tmp_path)
    monkeypatch.setattr(prepare_module, "_fill", None)  # fails if called
    began = time.process_time()
    second = prepare(reverse(), cache_dir=tmp_path)
    assert time.process_time() - began < 0.5
    assert second.train.to_list() == first.train.to_list()
    assert (second.fingerprint, second.test_fingerprint) == (first.fingerprint, first.test_fingerprint)
    assert built(tmp_path) == [first.fingerprint]


def test_any_change_of_the_corpus_makes_a_new_cache(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"data_seed": 2},
        {"train_size": 501},
        {"target_tokens": "characters"},
        {"limits": {"train": {"source": 11, "target": None}, "evaluation": ANY_LENGTH["evaluation"]}},
    ]
    prints = {prepare(reverse(**change), cache_dir=tmp_path).fingerprint for change in changes}
    assert built(tmp_path) == sorted(prints)
    assert len(prints) == len(changes)


def test_fingerprint_of_the_test_set_depends_on_its_content_only(ready: Ready) -> None:
    base = ready(reverse())
    assert ready(reverse(target_tokens="characters", train_size=400)).test_fingerprint == base.test_fingerprint
    assert ready(reverse(data_seed=2)).test_fingerprint != base.test_fingerprint
    # A literal, to notice a machine or release that draws other examples.
    assert base.test_fingerprint == "c10171ebbde5b96328759aaa2bfbf5b0f8ca19fd77879638813292d79a80f27a"


def test_a_changed_file_is_read_again(files: Callable[..., Files], ready: Ready) -> None:
    corpus = files()
    before = ready(corpus)
    path = Path(corpus.train)
    stat = path.stat()
    path.write_text(path.read_text().replace("ba,y x", "bb,y y"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size and time
    after = ready(corpus)
    assert after.train["source"][1] == "bb"
    assert after.fingerprint != before.fingerprint


def test_a_moved_file_is_the_same_data(files: Callable[..., Files], ready: Ready, tmp_path: Path) -> None:
    corpus = files()
    before = ready(corpus)
    moved = Path(corpus.train).rename(tmp_path / "other.csv")
    assert ready(replace(corpus, train=str(moved))).fingerprint == before.fingerprint


@pytest.mark.slow
def test_four_processes_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from tests.data.small_corpora import reverse; from attnspan.data.pipeline import prepare as p\n"
        "fill = p._fill\n"
        "def counted(*a): print('built', file=sys.stderr); fill(*a)\n"
        "p._fill = counted\n"
        "r = p.prepare(reverse(train_size=3000), cache_dir=Path(sys.argv[2]))\n"
        "print(r.fingerprint, r.train.num_rows, r.train['source'][7])\n"
        "assert 'torch' not in sys.modules and 'lightning' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parents[3]), str(tmp_path / "new" / "cache")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0] * 4, said
    assert len({out for out, _ in said}) == 1
    assert [err.strip() for _, err in said].count("built") == 1
    assert len(built(tmp_path / "new" / "cache")) == 1


def test_leftovers_of_a_killed_process_are_replaced(tmp_path: Path) -> None:
    fingerprint = prepare(reverse(), cache_dir=tmp_path).fingerprint
    (tmp_path / fingerprint / "prepared.json").unlink()
    (tmp_path / f".{fingerprint}.incomplete" / "scratch").mkdir(parents=True)
    assert prepare(reverse(), cache_dir=tmp_path).train.num_rows == 500
    assert built(tmp_path) == [fingerprint]


def test_a_failure_leaves_nothing(tmp_path: Path, files: Callable[..., Files]) -> None:
    with pytest.raises(InputError):
        prepare(files(test=("test.csv", "source,target\na,\n")), cache_dir=tmp_path / "cache")
    assert built(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *itertools.product(["train.arrow", "test.arrow", "source.json"], ["a bit", "cut", "gone"]),
        ("prepared.json", "cut"),
        ("prepared.json", "gone"),
    ],
)
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str) -> None:
    """And reported, because a flipped bit would change the results of a run but not its id."""
    whole = prepare(reverse(), cache_dir=tmp_path)
    path = tmp_path / whole.fingerprint / name
    rows, content = whole.train[:], path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        at = len(content) // 2
        flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        path.write_bytes(flipped if damage == "a bit" else content[:-5])
    again = prepare(reverse(), cache_dir=tmp_path)
    assert again.fingerprint == whole.fingerprint
    assert again.train[:] == rows
    assert path.read_bytes() == content
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert name in printed
    assert printed.endswith("; the data is prepared anew\n")
    prepare(reverse(), cache_dir=tmp_path)
    assert not capsys.readouterr().err


def test_a_large_cache_is_opened_before_it_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage that is found later is reported, and the next call rebuilds the cache."""
    whole = prepare(reverse(), cache_dir=tmp_path)
    whole.check_integrity(wait=True)
    path = tmp_path / whole.fingerprint / "train.arrow"
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    read, begin = cache_module.find_damage, threading.Event()

    def read_slowly(*where: Any, hashes: bool = True) -> str | None:
        assert not hashes or begin.wait(20)
        return read(*where, hashes=hashes)

    monkeypatch.setattr(cache_module, "find_damage", read_slowly)
    monkeypatch.setattr(cache_module, "VERIFICATION_WAIT", 0.01)
    opened = prepare(reverse(), cache_dir=tmp_path)
    opened.check_integrity(wait=False)
    begin.set()
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"train\.arrow was changed after it was written .*; run the same command again to prepare"
        ):
            opened.check_integrity(wait=True)
    assert not prepare_module.is_prepared(whole.fingerprint, cache_dir=tmp_path)
    monkeypatch.undo()
    prepare(reverse(), cache_dir=tmp_path).check_integrity(wait=True)
    assert path.read_bytes() == content


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/cache: cannot be written"):
        prepare(reverse(), cache_dir=tmp_path / "file" / "cache")


def test_a_full_disk_is_reported_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(prepare_module, "write_batches", full)
    with pytest.raises(
        InputError, match=r"cache: cannot be written \(No space left on device; .* are free, it needs more than "
    ):
        prepare(reverse(), cache_dir=tmp_path / "cache")
    assert built(tmp_path / "cache") == []


def test_longer_pairs_are_dropped_from_training_and_counted(ready: Ready) -> None:
    limits = {"train": {"source": 10, "target": 9}, "evaluation": {"source": None, "target": None}}
    prepared = ready(reverse(limits=limits))
    assert prepared.dropped == {"train": 150}
    assert prepared.train.num_rows == 350
    assert prepared.training_lengths == (3, 9)
    assert "train-00007" not in prepared.train["id"]  # ids keep the row numbers
    assert prepared.validation.num_rows == 40


@pytest.mark.parametrize("side", ["source", "target"])
def test_longer_pairs_in_test_are_an_error(ready: Ready, side: str) -> None:
    limits = {"train": ANY_LENGTH["train"], "evaluation": {"source": None, "target": None, side: 17}}
    with pytest.raises(InputError) as error:
        ready(reverse(limits=limits))
    assert str(error.value) == f"test row 16: the {side} has 18 tokens, more than data.limits.evaluation.{side}=17"


def test_limits_that_leave_no_training_pair(ready: Ready) -> None:
    limits = {"train": {"source": 2, "target": None}, "evaluation": ANY_LENGTH["evaluation"]}
    with pytest.raises(InputError, match=r"^train: no pair is within data\.limits\.train$"):
        ready(reverse(limits=limits))


def test_vocabulary_is_of_the_training_split_only(files: Callable[..., Files], ready: Ready) -> None:
    prepared = ready(files(test=("test.csv", "source,target\naqb,x NEW\n")))
    assert prepared.test["source_ids"][0][1] == UNK
    assert prepared.test["target_ids"][0][1] == UNK
    assert "q" not in prepared.source_tokenizer.tokens(range(len(prepared.source_tokenizer)))


def test_bpe_can_be_prepared(files: Callable[..., Files], ready: Ready) -> None:
    prepared = ready(files(source_tokens="bpe", target_tokens="bpe", vocabulary_size=262))
    assert len(prepared.source_tokenizer) <= 262
    assert prepared.source_tokenizer.decode(prepared.test["source_ids"][2]) == "abc"


def test_pairs_of_training_in_test_are_counted(files: Callable[..., Files], ready: Ready) -> None:
    assert ready(files()).overlap == 3
    other = "source,target\nab,x y\nab,x y\nab,y y\nnew,x y\n"
    assert ready(files(test=("test.csv", other))).overlap == 2
    assert ready(reverse()).overlap == 0


def test_the_cache_describes_its_content(prepared: PreparedData) -> None:
    directory = Path(prepared.train.cache_files[0]["filename"]).parent
    assert sorted(path.name for path in directory.iterdir()) == [
        "prepared.json",
        "source.json",
        "target.json",
        "test.arrow",
        "train.arrow",
        "validation.arrow",
    ]
    facts = json.loads((directory / "prepared.json").read_text())
    assert facts["identity"]["symbols"] == 7
    assert facts["examples"] == {"train": 500, "validation": 40, "test": 60}
    assert Tokenizer.load(directory / "source.json").encode("3") == prepared.source_tokenizer.encode("3")


def test_preparing_imports_no_torch_and_writes_nothing_at_home(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from attnspan.data.corpora import base, files, hub, pronunciation\n"
        "assert not {'torch', 'lightning', 'datasets', 'pandas', 'hydra'} & set(sys.modules)\n"
        "sys.path.insert(0, sys.argv[1]); from pathlib import Path; from tests.data.small_corpora import reverse\n"
        "from attnspan.data.pipeline.prepare import prepare; prepare(reverse(), cache_dir=Path(sys.argv[2]))\n"
        "assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parents[3]), str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.iterdir()) == []


class TestPreparedBefore:
    """What a sweep has prepared, for a job that starts later."""

    def test_is_used_whatever_has_become_of_the_files(self, files: Callable[..., Files], tmp_path: Path) -> None:
        corpus = files()
        before = prepare(corpus, cache_dir=tmp_path / "cache")
        again, change = prepare_as(before.fingerprint, lambda: corpus, cache_dir=tmp_path / "cache")
        assert (again.fingerprint, change) == (before.fingerprint, "")
        Path(corpus.train).write_text("source,target\nnew,x\n")
        again, change = prepare_as(before.fingerprint, lambda: corpus, cache_dir=tmp_path / "cache")
        assert (again.train["source"][:], change) == (["ab", "ba", "abc"], "the data is not what it was")
        Path(corpus.train).unlink()
        again, change = prepare_as(before.fingerprint, lambda: corpus, cache_dir=tmp_path / "cache")
        assert again.train["source"][:] == ["ab", "ba", "abc"]
        assert change == f"the data cannot be read any more (data.train: {corpus.train}: no such file)"

    def test_that_is_gone_is_the_reason(self, files: Callable[..., Files], tmp_path: Path) -> None:
        corpus = files()
        before = prepare(corpus, cache_dir=tmp_path / "cache")
        shutil.rmtree(before.directory)
        assert prepare_as(before.fingerprint, lambda: corpus, cache_dir=tmp_path / "cache")[0].train.num_rows == 3
        Path(corpus.train).write_text("source,target\nnew,x\n")
        shutil.rmtree(before.directory)
        with pytest.raises(InputError) as error:
            prepare_as(before.fingerprint, lambda: corpus, cache_dir=tmp_path / "cache")
        gone = f"and what was prepared from it, {before.directory}, is gone or damaged"
        assert str(error.value) == f"the data is not what it was, {gone}"
        assert not before.directory.exists()
