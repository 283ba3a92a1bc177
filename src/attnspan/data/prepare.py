"""A corpus made ready for training, once: checked, tokenized, cached as Arrow files that every run maps into memory.

The cache of a corpus lies in ``<cache_dir>/<fingerprint>/``::

    prepared.json                              counts and lengths; a cache with one is whole
    source.json  target.json                   the tokenizers
    train.arrow  validation.arrow  test.arrow  id, source, target, source_ids, target_ids, perhaps alignment

It is built in a directory beside it, under a lock, and renamed: any number of processes may ask at once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import compress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from filelock import FileLock

from attnspan.data.corpus import LIMITED, SPLITS, TEST, TRAIN, Corpus
from attnspan.data.hf import quiet
from attnspan.data.tokenization import Tokenizer
from attnspan.errors import InputError
from attnspan.rundir import read_json, write_json

FACTS = "prepared.json"
FORMAT = 1
"""Raise it when the same corpus would be cached differently: old caches are then left alone and not read."""

_ROWS = 1000  # in memory at once
_FIELDS = [
    *(pa.field(name, pa.string()) for name in ("id", "source", "target")),
    *(pa.field(name, pa.list_(pa.int32())) for name in ("source_ids", "target_ids")),
]
_ALIGNMENT = pa.field("alignment", pa.list_(pa.int32()))


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A corpus as token ids. The splits are memory-mapped, with the columns that the module's head names."""

    train: Dataset
    validation: Dataset
    test: Dataset
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    dropped: dict[str, int]
    """Split to pairs left out because they are longer than ``data.limits``; only ``train`` can lose any."""
    overlap: int
    """Test examples whose source and target both occur, as a pair, in training."""
    training_lengths: tuple[int, int]
    """Shortest and longest source that training really sees, in tokens."""
    fingerprint: str
    """sha256 of all that determines the data and its tokens."""
    test_fingerprint: str
    """sha256 of the test examples' ids, sources and targets: equal wherever the test set is."""


def prepare(corpus: Corpus, *, cache_dir: Path) -> Prepared:
    """Open the cache of ``corpus``, after making it if there is none.

    Raises:
        InputError: the corpus or a file of it cannot be used; nothing is left in the cache then.
    """
    corpus.check()
    with quiet():
        fingerprint = _fingerprint(corpus)
        directory = cache_dir / fingerprint
        if not (directory / FACTS).is_file():
            with _lock(cache_dir, fingerprint):
                if not (directory / FACTS).is_file():
                    _make(corpus, cache_dir, directory)
        return _open(directory, fingerprint)


def _fingerprint(corpus: Corpus) -> str:
    identity: dict[str, Any] = {"format": FORMAT, **corpus.identity()}
    if "bpe" in (corpus.source_tokens, corpus.target_tokens):
        identity["tokenizers"] = version("tokenizers")  # another release may choose other merges
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@contextmanager
def _lock(cache_dir: Path, fingerprint: str) -> Iterator[None]:
    lock = FileLock(cache_dir / f".{fingerprint}.lock")
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise InputError(f"{cache_dir}: cannot be written ({error.strerror or error})") from error
    try:
        yield
    finally:
        lock.release()


def _open(directory: Path, fingerprint: str) -> Prepared:
    facts = read_json(directory / FACTS)
    train, validation, test = (_map(directory, split) for split in SPLITS)
    return Prepared(
        train=train,
        validation=validation,
        test=test,
        source_tokenizer=Tokenizer.load(directory / "source.json"),
        target_tokenizer=Tokenizer.load(directory / "target.json"),
        dropped=facts["dropped"],
        overlap=facts["overlap"],
        training_lengths=(facts["training_lengths"][0], facts["training_lengths"][1]),
        fingerprint=fingerprint,
        test_fingerprint=facts["test_fingerprint"],
    )


def _map(directory: Path, split: str) -> Dataset:
    return Dataset.from_file(str(directory / f"{split}.arrow"))


def _make(corpus: Corpus, cache_dir: Path, directory: Path) -> None:
    # The lock is ours, so what lies there already is the rest of a process that was killed.
    work = directory.with_name(f".{directory.name}.making")
    try:
        for rest in (work, directory):
            shutil.rmtree(rest, ignore_errors=True)
        work.mkdir()
        _fill(work, corpus, cache_dir)
        work.rename(directory)
    except OSError as error:
        raise InputError(f"{cache_dir}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fill(work: Path, corpus: Corpus, cache_dir: Path) -> None:
    splits = corpus.load(cache_dir)
    kinds = {"source": corpus.source_tokens, "target": corpus.target_tokens}
    tokenizers = {
        side: Tokenizer.train(kind, _texts(splits[TRAIN], side), corpus.vocabulary_size) for side, kind in kinds.items()
    }
    for side, tokenizer in tokenizers.items():
        tokenizer.save(work / f"{side}.json")
    written = {}
    for split in SPLITS:
        _write(work / f"{split}.arrow", _encode(corpus, split, splits[split], tokenizers))
        written[split] = _map(work, split)
        if written[split].num_rows == 0:
            raise InputError(f"{split}: no pair is within data.limits.{LIMITED[split]}, so the split is empty")
    lengths = pc.min_max(pc.list_value_length(written[TRAIN].data["source_ids"])).as_py()
    facts = {
        "identity": corpus.identity(),
        "examples": {split: dataset.num_rows for split, dataset in written.items()},
        "dropped": {TRAIN: splits[TRAIN].num_rows - written[TRAIN].num_rows},
        "overlap": _overlap(written[TRAIN], written[TEST]),
        "training_lengths": [lengths["min"], lengths["max"]],
        "test_fingerprint": _content(written[TEST]),
    }
    write_json(work / FACTS, facts)


def _texts(dataset: Dataset, side: str) -> Iterator[str]:
    for batch in dataset.iter(_ROWS):
        yield from batch[side]


def _encode(
    corpus: Corpus, split: str, dataset: Dataset, tokenizers: dict[str, Tokenizer]
) -> Iterator[dict[str, list[Any]]]:
    """The rows of ``dataset`` that are within the limits, with their token ids, some at a time."""
    for first, batch in zip(range(0, dataset.num_rows, _ROWS), dataset.iter(_ROWS), strict=True):
        keep = [True] * len(batch["id"])
        for side, tokenizer in tokenizers.items():
            batch[f"{side}_ids"] = tokenizer.encode_batch(batch[side])
            limit = corpus.limit(split, side)
            for row, ids in enumerate(batch[f"{side}_ids"]):
                if limit is None or len(ids) <= limit:
                    continue
                if split != TRAIN:
                    raise InputError(
                        f"{corpus.where(split, first + row)}: the {side} has {len(ids)} tokens, "
                        f"more than data.limits.{LIMITED[split]}.{side}={limit}"
                    )
                keep[row] = False
        yield {column: list(compress(values, keep)) for column, values in batch.items()}


def _write(path: Path, batches: Iterator[dict[str, list[Any]]]) -> None:
    writer = None
    with pa.OSFile(str(path), "wb") as file:
        for batch in batches:
            fields = [*_FIELDS, *([_ALIGNMENT] if "alignment" in batch else [])]
            schema = pa.schema(fields)
            writer = writer or pa.ipc.new_stream(file, schema)
            writer.write_batch(pa.RecordBatch.from_pydict({field.name: batch[field.name] for field in fields}, schema))
        if writer is not None:
            writer.close()


def _overlap(train: Dataset, test: Dataset) -> int:
    """Test rows whose source and target are a pair of training too."""
    pairs = Counter(pair for batch in test.iter(_ROWS) for pair in zip(batch["source"], batch["target"], strict=True))
    trained = {
        pair
        for batch in train.iter(_ROWS)
        for pair in zip(batch["source"], batch["target"], strict=True)
        if pair in pairs
    }
    return sum(pairs[pair] for pair in trained)


def _content(dataset: Dataset) -> str:
    """sha256 over the ids, sources and targets of all rows."""
    digest = hashlib.sha256()
    for batch in dataset.iter(_ROWS):
        for row in zip(batch["id"], batch["source"], batch["target"], strict=True):
            digest.update(json.dumps(row).encode())
    return digest.hexdigest()
