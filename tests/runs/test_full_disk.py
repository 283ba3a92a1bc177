"""A disk that is full or read-only, and a run without memory: the message names path and need; what was whole stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnspan.errors import InputError
from attnspan.files import cannot_write, write_atomically
from attnspan.training.metrics_csv import MetricsCsv
from tests.commands import complete
from tests.conftest import TINY

ROOT = Path(__file__).parents[2]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_leaves_what_was_whole(small: Path) -> None:
    path = small / "a.ckpt"
    write_atomically(path, b"x" * 100_000)
    with pytest.raises(
        InputError, match=r"a\.ckpt: cannot be written \(No space left on device; .* are free, it needs 0\.. MB"
    ):
        write_atomically(path, b"y" * 150_000, keep_old_as=small / "old.ckpt")
    assert path.read_bytes() == b"x" * 100_000
    assert [one.name for one in small.iterdir()] == ["a.ckpt"]  # nothing half-written stays


def test_curves_on_a_full_disk(small: Path) -> None:
    """Lightning writes them, and names no file."""
    curves = MetricsCsv(small)

    def log(first: int, last: int) -> None:
        for step in range(first, last):
            curves.log_metrics({"train/loss": 1.0}, step=step)
        curves.save()

    log(1, 2)
    (small / "filler").write_bytes(b"x" * shutil.disk_usage(small).free)
    with pytest.raises(
        InputError, match=rf"{small}/metrics\.csv: cannot be written \(No space left on device; 0 bytes"
    ):
        log(2, 2000)


def test_a_read_only_disk_is_named(small: Path) -> None:
    (small / "a.txt").write_text("before", encoding="utf-8")
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    for path in (small / "a.txt", small / "new" / "b.txt"):
        with pytest.raises(InputError, match=rf"{path}: cannot be written \(Read-only file system\)"):
            write_atomically(path, b"after")
    assert (small / "a.txt").read_text(encoding="utf-8") == "before"


def test_a_power_cut_leaves_the_old_file_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may write names before contents: the new content is on the disk before its name, and then that too."""
    path, old = tmp_path / "a.ckpt", tmp_path / "old.ckpt"
    write_atomically(path, b"before")
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_sync(handle: int) -> None:
        synced = Path(os.readlink(f"/proc/self/fd/{handle}"))
        done.append(f"sync {'directory' if synced == tmp_path else synced.read_text(encoding='utf-8')}")
        fsync(handle)

    def note_replace(self: Path, target: Path) -> Path:
        done.append(f"rename to {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_atomically(path, b"after", keep_old_as=old)
    assert done == ["sync after", "rename to old.ckpt", "rename to a.ckpt", "sync directory"]
    done.clear()
    write_atomically(path, b"status", durable=False)
    assert done == ["rename to a.ckpt"]


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """As under a quota of the system's: one line, and the old file is there."""
    path = tmp_path / "a.txt"
    path.write_text("before", encoding="utf-8")
    code = (
        "import resource, sys; from pathlib import Path; from attnspan.files import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_atomically(Path(sys.argv[1]), b'x' * 5000)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert f"InputError: {path}: cannot be written (File too large)" in done.stderr.splitlines()[-1]
    assert path.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_on_a_full_disk(small: Path, tmp_path: Path, cache: Path) -> None:
    """A real run that fills its disk fails in one line; with room again the same command ends it."""
    words = ("decoder=bahdanau", *TINY, f"runs_dir={small}")

    def train() -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"ATTNSPAN_CACHE": str(cache)}
        return complete("attnspan.cli.train", *words, cwd=tmp_path, environment=environment)

    (small / "filler").write_bytes(b"x" * 150_000)
    done = train()
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert f"{small}/reverse/bahdanau/" in line
    assert "cannot be written (No space left on device; " in line
    assert "are free" in line
    subprocess.run(["mount", "-o", "remount,size=9m", str(small)], check=True)
    done = train()
    assert done.returncode == 0, done.stdout + done.stderr


def test_words_for_a_full_disk(tmp_path: Path) -> None:
    words = str(cannot_write(tmp_path / "a", OSError(28, "No space left on device"), need=3_000_000))
    assert words.startswith(f"{tmp_path}/a: cannot be written (No space left on device; ")
    assert words.endswith("are free, it needs 3.0 MB)")
