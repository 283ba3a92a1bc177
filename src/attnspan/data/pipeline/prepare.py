"""Prepares a corpus once: validated, tokenised and cached as Arrow files that every run maps into memory.

The cache of a corpus is the directory ``<cache_dir>/<fingerprint>/``::

    prepared.json                              counts, lengths, and the checksums of the other files
    source.json  target.json                   the tokenizers, or how images are read
    train.arrow  validation.arrow  test.arrow  id, source, target, source_ids, target_ids; test perhaps alignment

Where sources are images, ``source`` describes them, and the columns of :mod:`attnspan.data.images.columns` stand in
place of ``source_ids``.

:mod:`attnspan.data.pipeline.cache` builds and verifies it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from jaxtyping import Int

from attnspan.data.arrow import DIGEST, lengths_of_side, map_dataset, read_rows, silence_datasets, write_batches
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
from attnspan.data.pipeline.cache import FACTS, Damage, open_cache, refuse_damage, write_facts
from attnspan.data.pipeline.tokenize import TokenizeTask, tokenize
from attnspan.data.source_reader import SourceReader, load_source_reader
from attnspan.data.tokenizer import RELEASE_DEPENDENT, UNK, Tokenizer
from attnspan.errors import BadRowError, InputError
from attnspan.files import read_json

FORMAT = 2
"""Increase it when the same corpus would be cached differently. Old caches are then ignored."""


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """A corpus as token ids. The splits are memory-mapped, with the columns of the cache's Arrow files."""

    train: Dataset
    validation: Dataset
    test: Dataset
    source_tokenizer: SourceReader
    target_tokenizer: Tokenizer
    dropped: dict[str, int]
    """Split to the number of pairs dropped because they exceed ``data.limits``; possible in training only."""
    skipped: dict[str, int]
    """Split to the number of unusable rows skipped, which requires ``data.on_bad_row=skip``."""
    remarks: list[str]
    """What is legal and yet odd about the files, one line each."""
    files: dict[str, list[str]]
    """Split to the names of its files, where the corpus found them itself; else empty."""
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
    damage: Damage

    @classmethod
    def open(cls, directory: Path, damage: Damage) -> PreparedData:
        """Open the cache in ``directory``."""
        facts = read_json(directory / FACTS)
        fields: dict[str, Any] = {name: facts[name] for name in ("dropped", "overlap", "test_fingerprint")}
        fields |= {split: map_dataset(directory / f"{split}.arrow") for split in SPLITS}
        fields["source_tokenizer"] = load_source_reader(directory / "source.json")
        fields["target_tokenizer"] = Tokenizer.load(directory / "target.json")
        fields |= {"remarks": facts.get("remarks", []), "files": facts.get("split_files", {})}
        fields |= {"skipped": facts.get("skipped", {}), "training_lengths": tuple(facts["training_lengths"])}
        fields |= _trained_targets(fields[TRAIN])
        return cls(**fields, fingerprint=directory.name, directory=directory, damage=damage)

    def check_integrity(self, *, wait: bool) -> None:
        """Check that the files are undamaged; if ``wait`` is false, return at once while the result is pending.

        Raises:
            InputError: they are damaged; the next call of :func:`prepare` rebuilds them.
        """
        refuse_damage(self.directory, self.damage, wait=wait)

    def unknown_token_rates(self, split: str) -> dict[str, float]:
        """Side to the fraction of its tokens in ``split`` that are ``<unk>``; reads all token ids."""
        return unknown_token_rates(getattr(self, split))

    def warnings(self) -> list[str]:
        """Where the data comes from, and what limits the validity of results on it, one line each."""
        lines = provenance(self.files, self.remarks)
        dropped = [(split, count) for split, count in self.dropped.items() if count]
        lines += [f"{split}: {n} pairs are longer than data.limits.{split} and were dropped" for split, n in dropped]
        lines += [f"{split}: {count} unusable rows were skipped" for split, count in self.skipped.items()]
        if self.overlap:
            lines.append(f"test: {self.overlap} examples also occur in training")
        unknown = [(side, rate) for side, rate in self.unknown_token_rates(TEST).items() if rate]
        return lines + [f"test: {rate:.2%} of the {side} tokens are not in the vocabulary" for side, rate in unknown]


def token_counts(split: Dataset, side: str) -> Int[np.ndarray, " N"]:
    """Tokens of each example's ``side``, or patches of its image, from the memory map."""
    return lengths_of_side(split.data.table, side)


def _trained_targets(train: Dataset) -> dict[str, Any]:
    """The fields of :class:`PreparedData` about the targets of training."""
    sources, targets = (token_counts(train, side) for side in SIDES)
    return {
        "training_target_lengths": (int(targets.min()), int(targets.max())),
        "training_target_ratio": float((targets / sources).max()),
    }


def sides_of_tokens(split: Dataset) -> list[str]:
    """The sides that are texts; an image has no tokens."""
    return [side for side in SIDES if f"{side}_ids" in split.column_names]


def unknown_token_rates(split: Dataset) -> dict[str, float]:
    """Side to the fraction of its tokens that are ``<unk>``; reads all token ids."""
    rates = {}
    for side in sides_of_tokens(split):  # from the memory map, chunk by chunk
        chunks = [chunk.flatten().to_numpy() for chunk in split.data[f"{side}_ids"].chunks]
        rates[side] = sum(int((ids == UNK).sum()) for ids in chunks) / sum(len(ids) for ids in chunks)
    return rates


def prepare(corpus: Corpus, *, cache_dir: Path) -> PreparedData:
    """Open the cache of ``corpus``; build it if it is missing or damaged.

    Raises:
        InputError: the corpus or one of its files is unusable; the cache is then left empty.
    """
    directory = cache_dir / fingerprint_of(corpus)
    damage = open_cache(directory, lambda empty: _fill(empty, corpus))
    with silence_datasets():
        return PreparedData.open(directory, damage)


def prepare_as(fingerprint: str, make_corpus: Callable[[], Corpus], *, cache_dir: Path) -> tuple[PreparedData, str]:
    """Open what was prepared from a corpus before, whatever has become of its files since.

    Args:
        fingerprint: of the corpus then.
        make_corpus: makes it again.
        cache_dir: where it was prepared.

    Returns:
        The data, and how the corpus has changed: words, or an empty string.

    Raises:
        InputError: the corpus has changed, and the cache is gone or damaged.
    """
    try:
        corpus = make_corpus()
        if fingerprint_of(corpus) == fingerprint:
            return prepare(corpus, cache_dir=cache_dir), ""
        change = "the data is not what it was"
    except InputError as error:
        change = f"the data cannot be read any more ({error})"
    directory = cache_dir / fingerprint

    def refuse(_: Path) -> None:
        raise InputError(f"{change}, and what was prepared from it, {directory}, is gone or damaged")

    damage = open_cache(directory, refuse)
    with silence_datasets():
        return PreparedData.open(directory, damage), change


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
        columns = [*splits[split].column_names, *(f"{side}_ids" for side in corpus.tokenizations())]
        batches = tokenized(corpus, split, splits[split], tokenizers=directory, context=context)
        written[split] = write_batches(directory / f"{split}.arrow", columns, batches)
        if written[split].num_rows == 0:
            raise InputError(f"{corpus.split_location(split)}: no pair is within data.limits.{LIMITS_KEY[split]}")
    lengths = token_counts(written[TRAIN], "source")
    facts = {
        "identity": corpus.identity(),
        "examples": {split: dataset.num_rows for split, dataset in written.items()},
        "dropped": {TRAIN: context.dropped[TRAIN]},
        "remarks": context.remarks,
        "split_files": context.files,
        "overlap": _count_overlap(written[TRAIN], written[TEST]),
        "training_lengths": [int(lengths.min()), int(lengths.max())],
        "test_fingerprint": hash_examples(written[TEST]),
    }
    if context.skipped:
        facts["skipped"] = dict(context.skipped)
    shutil.rmtree(context.scratch)
    write_facts(directory, facts)
    shutil.rmtree(context.downloads, ignore_errors=True)


def tokenized(
    corpus: Corpus, split: str, dataset: Dataset, *, tokenizers: Path, context: BuildContext
) -> Iterator[pa.RecordBatch]:
    """The rows of ``dataset`` within the limits, with token ids; the other rows are counted.

    ``tokenizers`` is the directory of ``source.json`` and ``target.json``.

    Raises:
        InputError: a row is too long for validation or test, or has a side without tokens.
    """
    task = TokenizeTask(
        rows=dataset.cache_files[0]["filename"],
        tokenizers={side: str(tokenizers / f"{side}.json") for side in corpus.tokenizations()},
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
    source = DIGEST if DIGEST in test.column_names else "source"  # images are called differently in each split
    test_pairs = Counter((row[source], row["target"]) for row in read_rows(test))
    in_training = {pair for row in read_rows(train) if (pair := (row[source], row["target"])) in test_pairs}
    return sum(test_pairs[pair] for pair in in_training)


def provenance(files: Mapping[str, Sequence[str]], remarks: Sequence[str]) -> list[str]:
    """Lines that say of which files each split is, and what is odd about them."""
    return [f"{split}: read from {_enumerate(names)}" for split, names in files.items()] + [*remarks]


def _enumerate(names: Sequence[str]) -> str:
    """``train.csv``; ``2 files: a.csv, b.csv``; of many, the first and the last."""
    shown = [*names[:2], "...", names[-1]] if len(names) > 5 else names
    return names[0] if len(names) == 1 else f"{len(names)} files: {', '.join(shown)}"


def hash_examples(dataset: Dataset) -> str:
    """sha256 of the ids, sources and targets of all rows."""
    columns = [*COLUMNS, *([DIGEST] if DIGEST in dataset.column_names else [])]
    digest = hashlib.sha256()
    for row in read_rows(dataset):
        digest.update(json.dumps([row[column] for column in columns]).encode())
    return digest.hexdigest()
