"""Prepares a corpus once: validated, tokenised and cached as Arrow files that every run maps into memory.

The cache (:mod:`attnspan.data.pipeline.prepared_data`) is built in a neighbouring directory under a lock and then
renamed, so any number of processes may ask for it at once. Every byte is verified before results that depend on it are
written; a large cache is opened while it is still being verified.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import wait
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from attnspan.checksums import make_manifest
from attnspan.data.arrow import read_rows, silence_datasets, write_batches
from attnspan.data.corpora.base import (
    COLUMNS,
    LIMITS_KEY,
    SPLITS,
    TEST,
    TRAIN,
    BuildContext,
    Corpus,
    describe_rows,
)
from attnspan.data.pipeline.prepared_data import FACTS, PreparedData, completed, lock_cache, verify_cache
from attnspan.data.pipeline.tokenize import TokenizeTask, tokenize
from attnspan.data.tokenizer import RELEASE_DEPENDENT
from attnspan.errors import BadRowError, InputError
from attnspan.files import cannot_write, write_json
from attnspan.runs.layout import FILES

FORMAT = 2
"""Increase it when the same corpus would be cached differently. Old caches are then ignored."""

VERIFICATION_WAIT = 1.0
"""Seconds to wait for the verification of a cache, enough for about half a gigabyte."""


def prepare(corpus: Corpus, *, cache_dir: Path) -> PreparedData:
    """Open the cache of ``corpus``; build it if it is missing or damaged.

    Raises:
        InputError: the corpus or one of its files is unusable; the cache is then left empty.
    """
    directory = cache_dir / fingerprint_of(corpus)
    with silence_datasets():
        damage = verify_cache(directory)
        wait([damage], VERIFICATION_WAIT)
        if damage.done() and damage.result():
            with lock_cache(directory):
                damage = verify_cache(directory)
                if found := damage.result():  # no other process has built it in the meantime
                    if directory.exists():
                        print(f"{directory}: {found}; the data is prepared anew", file=sys.stderr)
                    _build(corpus, directory)
                    damage = completed(None)  # its checksums were just computed
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
    written, dropped = {}, Counter[str]()
    for split in SPLITS:
        columns = [*splits[split].column_names, "source_ids", "target_ids"]
        batches = _tokenized(corpus, split, splits[split], directory, context, dropped)
        written[split] = write_batches(directory / f"{split}.arrow", columns, batches)
        if written[split].num_rows == 0:
            raise InputError(f"{corpus.split_location(split)}: no pair is within data.limits.{LIMITS_KEY[split]}")
    lengths = pc.min_max(pc.list_value_length(written[TRAIN].data["source_ids"])).as_py()
    facts = {
        "identity": corpus.identity(),
        "examples": {split: dataset.num_rows for split, dataset in written.items()},
        "dropped": {TRAIN: dropped[TRAIN]},
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
    corpus: Corpus, split: str, dataset: Dataset, directory: Path, context: BuildContext, dropped: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """The rows of ``dataset`` within the limits, with token ids; the other rows are counted.

    Raises:
        InputError: a row is too long for validation or test, or has a side without tokens.
    """
    task = TokenizeTask(
        rows=dataset.cache_files[0]["filename"],
        tokenizers={side: str(directory / f"{side}.json") for side in ("source", "target")},
        limits={side: corpus.limits[LIMITS_KEY[split]][side] for side in ("source", "target")},
        too_long_is_bad=split != TRAIN,
    )
    for batch in tokenize(task, context.scratch):
        for example_id, problem in batch.bad:
            location = f"{corpus.split_location(split)} {describe_rows(example_id)}"
            corpus.handle_bad_row(split, BadRowError(f"{location}: {problem}"), context)
        dropped[split] += batch.dropped
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
