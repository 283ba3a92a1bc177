"""The directories of prepared data: built once, whatever number of processes ask for them, and verified byte by byte.

A cache is built in a neighbouring directory under a lock and then renamed. ``prepared.json`` in it has the checksums of
its other files. Every byte is verified before results that depend on it are written; a large cache is opened while it
is still being verified.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from attnspan.checksums import Manifest, find_damage, make_manifest
from attnspan.data.arrow import silence_datasets
from attnspan.data.background import in_thread
from attnspan.errors import InputError
from attnspan.files import cannot_write, read_json, write_json
from attnspan.runs.layout import FILES

FACTS = "prepared.json"

VERIFICATION_WAIT = 1.0
"""Seconds to wait for the verification of a cache, enough for about half a gigabyte."""

Damage = Future[str | None]
"""The damage found in the files of a cache, None for none. It is pending until large files are read."""


def open_cache(directory: Path, fill: Callable[[Path], None]) -> Damage:
    """Verify the cache in ``directory``; where it is missing or damaged, ``fill`` builds it in an empty directory.

    Raises:
        InputError: it cannot be written, or ``fill`` raised it; there is no cache then.
    """
    with silence_datasets():
        damage = _verify(directory)
        wait([damage], VERIFICATION_WAIT)
        if damage.done() and damage.result():
            with _lock(directory):
                damage = _verify(directory)
                if found := damage.result():  # no other process has built it in the meantime
                    if directory.exists():
                        print(f"{directory}: {found}; the data is prepared anew", file=sys.stderr)
                    _build(directory, fill)
                    damage = _completed(None)  # its checksums were just computed
        return damage


def refuse_damage(directory: Path, damage: Damage, *, wait: bool) -> None:
    """Check that a cache is undamaged; if ``wait`` is false, return at once while the result is pending.

    Raises:
        InputError: it is damaged; the next call of :func:`open_cache` rebuilds it.
    """
    if (wait or damage.done()) and (found := damage.result()):
        with _lock(directory):
            if _verify(directory).result():  # no other process has rebuilt it in the meantime
                (directory / FACTS).unlink(missing_ok=True)
        raise InputError(f"{directory}: {found}; run the same command again to prepare the data anew")


def write_facts(directory: Path, facts: dict[str, Any]) -> None:
    """Write ``facts`` to ``prepared.json``, with the checksums of all other files in ``directory``."""
    files = sorted(path.name for path in directory.iterdir())
    write_json(directory / FACTS, facts | {FILES: make_manifest(directory, files)})


@contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """Hold the lock of the cache in ``directory``, across processes.

    Raises:
        InputError: the lock cannot be created.
    """
    lock = FileLock(directory.with_name(f".{directory.name}.lock"))
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise InputError(f"{directory.parent}: cannot be written ({error.strerror or error})") from error
    try:
        yield
    finally:
        lock.release()


def _verify(directory: Path) -> Damage:
    """Find damage in the cache in ``directory``; the result is None if there is none.

    Every byte is read, in a thread, because a flipped bit would change results without changing a run id. Missing files
    and wrong sizes are found at once.

    Raises:
        InputError: a file cannot be read (from the future).
    """
    try:
        manifest: Manifest = read_json(directory / FACTS).get(FILES, {FACTS: {}})
    except InputError:
        return _completed(f"{FACTS} is missing or damaged")
    if damage := find_damage(directory, manifest, hashes=False):
        return _completed(damage)
    return in_thread(lambda: find_damage(directory, manifest))


def _completed(damage: str | None) -> Damage:
    """A future whose result is known."""
    result: Damage = Future()
    result.set_result(damage)
    return result


def _build(directory: Path, fill: Callable[[Path], None]) -> None:
    # We hold the lock, so existing directories are left over from a killed process.
    incomplete = directory.with_name(f".{directory.name}.incomplete")
    try:
        for leftover in (incomplete, directory):
            shutil.rmtree(leftover, ignore_errors=True)
        incomplete.mkdir()
        fill(incomplete)
        incomplete.rename(directory)
    except OSError as error:
        written = sum(path.stat().st_size for path in incomplete.rglob("*") if path.is_file())
        raise cannot_write(directory.parent, error, need=written, at_least=True) from error
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)
