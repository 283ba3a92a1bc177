"""Prepares a corpus once: validated, tokenised and cached as Arrow files that every run maps into memory.

The cache of a corpus is the directory ``<cache_dir>/<fingerprint>/``::

    prepared.json                              counts, lengths, and the checksums of the other files
    source.json  target.json                   the tokenizers
    train.arrow  validation.arrow  test.arrow  id, source, target, source_ids, target_ids; test perhaps alignment

It is built in a neighbouring directory under a lock and then renamed, so any number of processes may ask for it at
once. Every byte is verified before results that depend on it are written; a large cache is opened while it is still
being verified.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from filelock import FileLock
from jaxtyping import Int

from attnspan.checksums import Manifest, find_damage, make_manifest
from attnspan.data.arrow import map_dataset, read_rows, silence_datasets, write_batches
from attnspan.data.background import in_thread
from attnspan.data.corpora.base import (
    COLUMNS,
    LIMITS_KEY,
    SIDES,
    SPLITS,
    TEST,
    TRAIN,
    BuildContext,
    Corpus,
    describe_rows,
)
from attnspan.data.pipeline.tokenize import TokenizeTask, tokenize
from attnspan.data.tokenizer import RELEASE_DEPENDENT, UNK, Tokenizer
from attnspan.errors import BadRowError, InputError
from attnspan.files import cannot_write, read_json, write_json
from attnspan.runs.layout import FILES

FORMAT = 2
"""Increase it when the same corpus would be cached differently. Old caches are then ignored."""

VERIFICATION_WAIT = 1.0
"""Seconds to wait for the verification of a cache, enough for about half a gigabyte."""

FACTS = "prepared.json"


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """A corpus as token ids. The splits are memory-mapped, with the columns of the cache's Arrow files."""

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
    training_target_lengths: tuple[int, int]
    """Shortest and longest target in training, in tokens without ``<eos>``."""
    training_target_ratio: float
    """The largest ratio of target tokens to source tokens of a training pair."""
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
        fields: dict[str, Any] = {name: facts[name] for name in ("dropped", "overlap", "test_fingerprint")}
        fields |= {split: map_dataset(directory / f"{split}.arrow") for split in SPLITS}
        fields |= {f"{side}_tokenizer": Tokenizer.load(directory / f"{side}.json") for side in SIDES}
        fields |= {"skipped": facts.get("skipped", {}), "training_lengths": tuple(facts["training_lengths"])}
        fields |= _trained_targets(fields[TRAIN])
        return cls(**fields, fingerprint=directory.name, directory=directory, damage=damage)

    def check_integrity(self, *, wait: bool) -> None:
        """Check that the files are undamaged; if ``wait`` is false, return at once while the result is pending.

        Raises:
            InputError: they are damaged; the next call of :func:`prepare` rebuilds them.
        """
        if (wait or self.damage.done()) and (damage := self.damage.result()):
            with _lock(self.directory):
                if _verify(self.directory).result():  # no other process has rebuilt it in the meantime
                    (self.directory / FACTS).unlink(missing_ok=True)
            raise InputError(f"{self.directory}: {damage}; run the same command again to prepare the data anew")

    def unknown_token_rates(self, split: str) -> dict[str, float]:
        """Side to the fraction of its tokens in ``split`` that are ``<unk>``; reads all token ids."""
        rates = {}
        for side in SIDES:  # from the memory map, chunk by chunk
            chunks = [chunk.flatten().to_numpy() for chunk in getattr(self, split).data[f"{side}_ids"].chunks]
            rates[side] = sum(int((ids == UNK).sum()) for ids in chunks) / sum(len(ids) for ids in chunks)
        return rates

    def warnings(self) -> list[str]:
        """What limits the validity of results on this data, one line each."""
        dropped = [(split, count) for split, count in self.dropped.items() if count]
        lines = [f"{split}: {n} pairs are longer than data.limits.{split} and were dropped" for split, n in dropped]
        lines += [f"{split}: {count} unusable rows were skipped" for split, count in self.skipped.items()]
        if self.overlap:
            lines.append(f"test: {self.overlap} examples also occur in training")
        unknown = [(side, rate) for side, rate in self.unknown_token_rates(TEST).items() if rate]
        return lines + [f"test: {rate:.2%} of the {side} tokens are not in the vocabulary" for side, rate in unknown]


def token_counts(split: Dataset, side: str) -> Int[np.ndarray, " N"]:
    """Tokens of each example's ``side``, from the memory map."""
    return np.asarray(pc.list_value_length(split.data[f"{side}_ids"]).to_numpy(), dtype=np.int64)


def _trained_targets(train: Dataset) -> dict[str, Any]:
    """The fields of :class:`PreparedData` about the targets of training."""
    sources, targets = (token_counts(train, side) for side in SIDES)
    return {
        "training_target_lengths": (int(targets.min()), int(targets.max())),
        "training_target_ratio": float((targets / sources).max()),
    }


def prepare(corpus: Corpus, *, cache_dir: Path) -> PreparedData:
    """Open the cache of ``corpus``; build it if it is missing or damaged.

    Raises:
        InputError: the corpus or one of its files is unusable; the cache is then left empty.
    """
    directory = cache_dir / fingerprint_of(corpus)
    with silence_datasets():
        damage = _verify(directory)
        wait([damage], VERIFICATION_WAIT)
        if damage.done() and damage.result():
            with _lock(directory):
                damage = _verify(directory)
                if found := damage.result():  # no other process has built it in the meantime
                    if directory.exists():
                        print(f"{directory}: {found}; the data is prepared anew", file=sys.stderr)
                    _build(corpus, directory)
                    damage = _completed(None)  # its checksums were just computed
        return PreparedData.open(directory, damage)


def fingerprint_of(corpus: Corpus) -> str:
    """The sha256 that names the cache of ``corpus``. Nothing is written.

    Raises:
        InputError: the corpus is unusable.
    """
    corpus.check()
    with silence_datasets():
        identity: dict[str, Any] = {"format": FORMAT, **corpus.identity()}
    if not {*corpus.tokenizations().values()}.isdisjoint(RELEASE_DEPENDENT):
        identity["tokenizers"] = version("tokenizers")
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def is_prepared(fingerprint: str, *, cache_dir: Path) -> bool:
    """Whether the cache of a corpus exists."""
    return (cache_dir / fingerprint / FACTS).is_file()


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


def _verify(directory: Path) -> Future[str | None]:
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


def _completed(damage: str | None) -> Future[str | None]:
    """A future whose result is known."""
    result: Future[str | None] = Future()
    result.set_result(damage)
    return result


def _build(corpus: Corpus, directory: Path) -> None:
    # We hold the lock, so existing directories are left over from a killed process.
    incomplete = directory.with_name(f".{directory.name}.incomplete")
    try:
        for leftover in (incomplete, directory):
            shutil.rmtree(leftover, ignore_errors=True)
        incomplete.mkdir()
        _fill(incomplete, corpus)
        incomplete.rename(directory)
    except OSError as error:
        written = sum(path.stat().st_size for path in incomplete.rglob("*") if path.is_file())
        raise cannot_write(directory.parent, error, need=written, at_least=True) from error
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)


def _fill(directory: Path, corpus: Corpus) -> None:
    context = BuildContext(scratch=directory / "scratch", downloads=directory.with_name(f"{directory.name}.downloads"))
    context.scratch.mkdir()
    splits = corpus.load(context)
    for split in SPLITS:
        if splits[split].num_rows == 0:
            raise InputError(f"{corpus.split_location(split)}: the {split} split is empty")
    for side, tokenizer in corpus.train_tokenizers(splits[TRAIN]).items():
        tokenizer.save(directory / f"{side}.json")
    written = {}
    for split in SPLITS:
        columns = [*splits[split].column_names, "source_ids", "target_ids"]
        batches = _tokenized(corpus, split, splits[split], directory, context)
        written[split] = write_batches(directory / f"{split}.arrow", columns, batches)
        if written[split].num_rows == 0:
            raise InputError(f"{corpus.split_location(split)}: no pair is within data.limits.{LIMITS_KEY[split]}")
    lengths = pc.min_max(pc.list_value_length(written[TRAIN].data["source_ids"])).as_py()
    facts = {
        "identity": corpus.identity(),
        "examples": {split: dataset.num_rows for split, dataset in written.items()},
        "dropped": {TRAIN: context.dropped[TRAIN]},
        "overlap": _count_overlap(written[TRAIN], written[TEST]),
        "training_lengths": [lengths["min"], lengths["max"]],
        "test_fingerprint": _hash_examples(written[TEST]),
    }
    if context.skipped:
        facts["skipped"] = dict(context.skipped)
    shutil.rmtree(context.scratch)
    files = sorted(path.name for path in directory.iterdir())
    write_json(directory / FACTS, facts | {FILES: make_manifest(directory, files)})
    shutil.rmtree(context.downloads, ignore_errors=True)


def _tokenized(
    corpus: Corpus, split: str, dataset: Dataset, directory: Path, context: BuildContext
) -> Iterator[pa.RecordBatch]:
    """The rows of ``dataset`` within the limits, with token ids; the other rows are counted.

    Raises:
        InputError: a row is too long for validation or test, or has a side without tokens.
    """
    task = TokenizeTask(
        rows=dataset.cache_files[0]["filename"],
        tokenizers={side: str(directory / f"{side}.json") for side in SIDES},
        limits={side: corpus.limits[LIMITS_KEY[split]][side] for side in SIDES},
        too_long_is_bad=split != TRAIN,
    )
    for batch in tokenize(task, context.scratch):
        for example_id, problem in batch.bad:
            location = f"{corpus.split_location(split)} {describe_rows(example_id)}"
            corpus.handle_bad_row(split, BadRowError(f"{location}: {problem}"), context)
        context.dropped[split] += batch.dropped
        yield batch.rows


def _count_overlap(train: Dataset, test: Dataset) -> int:
    """Number of test rows whose source and target occur as a pair in training."""
    test_pairs = Counter((row["source"], row["target"]) for row in read_rows(test))
    in_training = {pair for row in read_rows(train) if (pair := (row["source"], row["target"])) in test_pairs}
    return sum(test_pairs[pair] for pair in in_training)


def _hash_examples(dataset: Dataset) -> str:
    """sha256 of the ids, sources and targets of all rows."""
    digest = hashlib.sha256()
    for row in read_rows(dataset):
        digest.update(json.dumps([row[column] for column in COLUMNS]).encode())
    return digest.hexdigest()
