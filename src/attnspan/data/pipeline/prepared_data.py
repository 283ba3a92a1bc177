"""A corpus as memory-mapped token ids, and the integrity of its cache.

The cache of a corpus is the directory ``<cache_dir>/<fingerprint>/``::

    prepared.json                              counts, lengths, and the checksums of the other files
    source.json  target.json                   the tokenizers
    train.arrow  validation.arrow  test.arrow  id, source, target, source_ids, target_ids; test perhaps alignment
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from filelock import FileLock

from attnspan.checksums import Manifest, find_damage
from attnspan.data.arrow import map_dataset
from attnspan.data.corpora.base import SPLITS, TEST
from attnspan.data.tokenizer import UNK, Tokenizer
from attnspan.errors import InputError
from attnspan.files import read_json
from attnspan.runs.layout import FILES

FACTS = "prepared.json"


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """A corpus as token ids. The splits are memory-mapped, with the columns listed above."""

    train: Dataset
    validation: Dataset
    test: Dataset
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    dropped: dict[str, int]
    """Split to the number of pairs dropped because they exceed ``data.limits``; possible in training only."""
    skipped: dict[str, int]
    """Split to the number of unusable rows skipped, which requires ``data.on_bad_row=skip``."""
    overlap: int
    """Number of test examples that occur, as a pair, in training."""
    training_lengths: tuple[int, int]
    """Shortest and longest source in training, in tokens."""
    fingerprint: str
    """sha256 of everything that determines the data and its tokens."""
    test_fingerprint: str
    """sha256 of the test examples' ids, sources and targets; equal for equal test sets."""
    directory: Path
    """The directory of the cache."""
    damage: Future[str | None]
    """The damage found in the files, None for none. It is pending until large files are read."""

    @classmethod
    def open(cls, directory: Path, damage: Future[str | None]) -> PreparedData:
        """Open the cache in ``directory``."""
        facts = read_json(directory / FACTS)
        train, validation, test = (map_dataset(directory / f"{split}.arrow") for split in SPLITS)
        return cls(
            train=train,
            validation=validation,
            test=test,
            source_tokenizer=Tokenizer.load(directory / "source.json"),
            target_tokenizer=Tokenizer.load(directory / "target.json"),
            dropped=facts["dropped"],
            skipped=facts.get("skipped", {}),
            overlap=facts["overlap"],
            training_lengths=(facts["training_lengths"][0], facts["training_lengths"][1]),
            fingerprint=directory.name,
            test_fingerprint=facts["test_fingerprint"],
            directory=directory,
            damage=damage,
        )

    def check_integrity(self, *, wait: bool) -> None:
        """Check that the files are undamaged.

        Args:
            wait: wait for a pending result; otherwise return at once.

        Raises:
            InputError: they are damaged; the next call of :func:`attnspan.data.pipeline.prepare.prepare` rebuilds them.
        """
        if (wait or self.damage.done()) and (damage := self.damage.result()):
            with lock_cache(self.directory):
                if verify_cache(self.directory).result():  # no other process has rebuilt it in the meantime
                    (self.directory / FACTS).unlink(missing_ok=True)
            raise InputError(f"{self.directory}: {damage}; run the same command again to prepare the data anew")

    def unknown_token_rates(self, split: str) -> dict[str, float]:
        """Side to the fraction of its tokens in ``split`` that are ``<unk>``; reads all token ids."""
        return {side: _unknown_token_rate(getattr(self, split), f"{side}_ids") for side in ("source", "target")}

    def warnings(self) -> list[str]:
        """What limits the validity of results on this data, one line each."""
        lines = [
            f"{split}: {count} pairs are longer than data.limits.{split} and were dropped"
            for split, count in self.dropped.items()
            if count
        ]
        lines += [f"{split}: {count} unusable rows were skipped" for split, count in self.skipped.items()]
        if self.overlap:
            lines.append(f"test: {self.overlap} examples also occur in training")
        for side, rate in self.unknown_token_rates(TEST).items():
            if rate:
                lines.append(f"test: {rate:.2%} of the {side} tokens are not in the vocabulary")
        return lines


@contextmanager
def lock_cache(directory: Path) -> Iterator[None]:
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


def verify_cache(directory: Path) -> Future[str | None]:
    """Find damage in the cache in ``directory``; the result is None if there is none.

    Every byte is read, in a thread, because a flipped bit would change results without changing a run id. Missing files
    and wrong sizes are found at once. The process may exit while the thread reads.

    Raises:
        InputError: a file cannot be read (from the future).
    """
    try:
        manifest: Manifest = read_json(directory / FACTS).get(FILES, {FACTS: {}})
    except InputError:
        return completed(f"{FACTS} is missing or damaged")
    if damage := find_damage(directory, manifest, hashes=False):
        return completed(damage)
    result: Future[str | None] = Future()

    def read_all() -> None:
        try:
            result.set_result(find_damage(directory, manifest))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=read_all, daemon=True).start()
    return result


def completed(damage: str | None) -> Future[str | None]:
    """A future whose result is known."""
    result: Future[str | None] = Future()
    result.set_result(damage)
    return result


def _unknown_token_rate(dataset: Dataset, column: str) -> float:
    # The ids are read from the memory map, chunk by chunk.
    chunks = [chunk.flatten().to_numpy() for chunk in dataset.data[column].chunks]
    return sum(int((ids == UNK).sum()) for ids in chunks) / sum(len(ids) for ids in chunks)
