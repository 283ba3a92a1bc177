"""A corpus made ready for training, once: checked, tokenized, cached as Arrow files that every run maps into memory.

The cache of a corpus lies in ``<cache_dir>/<fingerprint>/``::

    prepared.json                              counts and lengths, and what the other files were when they were written
    source.json  target.json                   the tokenizers
    train.arrow  validation.arrow  test.arrow  id, source, target, source_ids, target_ids; test perhaps alignment

It is built in a directory beside it, under a lock, and renamed: any number of processes may ask at once. Every byte is
read before anything is written that rests on it, but a large cache is opened before that is done.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from filelock import FileLock

from attnspan.checksums import Manifest, find_damage, make_manifest
from attnspan.data.arrow import map_dataset, quiet, read_rows, write_pieces
from attnspan.data.corpora.base import COLUMNS, LIMITED, SPLITS, TEST, TRAIN, Corpus, Workshop
from attnspan.data.pipeline.encode import Task, encode
from attnspan.data.tokenizer import SIZED, UNK, Tokenizer
from attnspan.errors import BadRowError, InputError
from attnspan.files import cannot_write, read_json, write_json
from attnspan.runs.layout import FILES

FACTS = "prepared.json"
FORMAT = 2
"""Raise it when the same corpus would be cached differently: old caches are then left alone and not read."""

PATIENCE = 1.0
"""Seconds to wait until all is read; half a gigabyte takes as long."""


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """A corpus as token ids. The splits are memory-mapped, with the columns that the module's head names."""

    train: Dataset
    validation: Dataset
    test: Dataset
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    dropped: dict[str, int]
    """Split to pairs left out because they are longer than ``data.limits``; only ``train`` can lose any."""
    skipped: dict[str, int]
    """Split to rows left out because they could not be used, which only ``data.on_bad_row=skip`` allows."""
    overlap: int
    """Test examples whose source and target both occur, as a pair, in training."""
    training_lengths: tuple[int, int]
    """Shortest and longest source that training really sees, in tokens."""
    fingerprint: str
    """sha256 of all that determines the data and its tokens."""
    test_fingerprint: str
    """sha256 of the test examples' ids, sources and targets: equal wherever the test set is."""
    directory: Path
    """Where the files are."""
    damage: Future[str | None]
    """What is wrong with them, in words; of large ones it is known when they are read through."""

    def refuse_damaged(self, *, at_once: bool) -> None:
        """End a run whose data turns out to be damaged.

        Args:
            at_once: go on if that is not known yet, instead of waiting.

        Raises:
            InputError: it is; the next call of :func:`prepare` makes it anew.
        """
        if (self.damage.done() or not at_once) and (damage := self.damage.result()):
            with _lock(self.directory.parent, self.fingerprint):
                if _read_through(self.directory).result():  # nobody else has made it anew meanwhile
                    (self.directory / FACTS).unlink(missing_ok=True)
            raise InputError(f"{self.directory}: {damage}; the same command prepares the data anew")

    def unknown(self, split: str) -> dict[str, float]:
        """Side to the share of its tokens in ``split`` that the vocabulary lacks, from 0 to 1; reads all of them."""
        return {side: _share_unknown(getattr(self, split), f"{side}_ids") for side in ("source", "target")}

    def remarks(self) -> list[str]:
        """What to know about the data before believing numbers from it, a line each."""
        lines = [
            f"{split}: {count} pairs are longer than data.limits.{split} and were dropped"
            for split, count in self.dropped.items()
            if count
        ]
        lines += [f"{split}: {count} rows could not be used and were skipped" for split, count in self.skipped.items()]
        if self.overlap:
            lines.append(f"test: {self.overlap} examples are in training too, word for word")
        for side, share in self.unknown(TEST).items():
            if share:
                lines.append(f"test: {share:.2%} of the {side}'s tokens are unknown to the vocabulary")
        return lines


def prepare(corpus: Corpus, *, cache_dir: Path) -> PreparedData:
    """Open the cache of ``corpus``, after making it if there is none; one that is damaged is made anew.

    Raises:
        InputError: the corpus or a file of it cannot be used; nothing is left in the cache then.
    """
    fingerprint = fingerprint_of(corpus)
    with quiet():
        directory = cache_dir / fingerprint
        damage = _read_through(directory)
        wait([damage], PATIENCE)
        if damage.done() and damage.result():
            with _lock(cache_dir, fingerprint):
                damage = _read_through(directory)
                if found := damage.result():  # nobody else has made it meanwhile
                    if directory.exists():
                        print(f"{directory}: {found}; the data is prepared anew", file=sys.stderr)
                    _make(corpus, cache_dir, directory)
                    damage = _known(None)  # it was read when its hashes were made
        return _open(directory, fingerprint, damage)


def fingerprint_of(corpus: Corpus) -> str:
    """Name the cache of ``corpus``, whether there is one or not; nothing is written.

    Raises:
        InputError: the corpus cannot be used.
    """
    corpus.check()
    with quiet():
        identity: dict[str, Any] = {"format": FORMAT, **corpus.identity()}
    if not {*corpus.kinds().values()}.isdisjoint(SIZED):
        identity["tokenizers"] = version(
            "tokenizers"
        )  # another release may choose other merges, or cut words otherwise
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def is_prepared(name: str, *, cache_dir: Path) -> bool:
    """Whether the corpus with the fingerprint ``name`` can be opened at once."""
    return (cache_dir / name / FACTS).is_file()


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


def _read_through(directory: Path) -> Future[str | None]:
    """Say in words why the cache in ``directory`` cannot be used, None if it can.

    Every byte is read: one that has flipped would change the numbers of each run on this data, and no run id. What
    needs no reading is known at once, and the process may end meanwhile.

    Raises:
        InputError: a file cannot be read now.
    """
    manifest: Manifest = {}

    def read(*, hashes: bool) -> str | None:
        try:
            return find_damage(directory, manifest, hashes=hashes)
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error

    def read_all() -> None:
        try:
            result.set_result(read(hashes=True))
        except BaseException as error:
            result.set_exception(error)

    try:
        manifest = read_json(directory / FACTS).get(FILES, {FACTS: {}})
    except InputError:
        return _known(f"{FACTS} is missing or damaged")
    if found := read(hashes=False):
        return _known(found)
    result: Future[str | None] = Future()
    threading.Thread(target=read_all, daemon=True).start()
    return result


def _known(damage: str | None) -> Future[str | None]:
    """What needs no waiting."""
    result: Future[str | None] = Future()
    result.set_result(damage)
    return result


def _open(directory: Path, fingerprint: str, damage: Future[str | None]) -> PreparedData:
    facts = read_json(directory / FACTS)
    train, validation, test = (map_dataset(directory / f"{split}.arrow") for split in SPLITS)
    return PreparedData(
        train=train,
        validation=validation,
        test=test,
        source_tokenizer=Tokenizer.load(directory / "source.json"),
        target_tokenizer=Tokenizer.load(directory / "target.json"),
        dropped=facts["dropped"],
        skipped=facts.get("skipped", {}),
        overlap=facts["overlap"],
        training_lengths=(facts["training_lengths"][0], facts["training_lengths"][1]),
        fingerprint=fingerprint,
        test_fingerprint=facts["test_fingerprint"],
        directory=directory,
        damage=damage,
    )


def _make(corpus: Corpus, cache_dir: Path, directory: Path) -> None:
    # The lock is ours, so what lies there already is the rest of a process that was killed.
    work = directory.with_name(f".{directory.name}.making")
    try:
        for rest in (work, directory):
            shutil.rmtree(rest, ignore_errors=True)
        work.mkdir()
        _fill(work, corpus)
        work.rename(directory)
    except OSError as error:
        written = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
        raise cannot_write(cache_dir, error, need=written, at_least=True) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fill(directory: Path, corpus: Corpus) -> None:
    workshop = Workshop(work=directory / "work", kept=directory.with_name(f"{directory.name}.kept"))
    workshop.work.mkdir()
    splits = corpus.load(workshop)
    for split in SPLITS:
        if splits[split].num_rows == 0:
            raise InputError(f"{corpus.place(split)}: the {split} split is empty")
    tokenizers = corpus.train_tokenizers(splits[TRAIN])
    for side, tokenizer in tokenizers.items():
        tokenizer.save(directory / f"{side}.json")
    written, dropped = {}, Counter[str]()
    for split in SPLITS:
        columns = [*splits[split].column_names, "source_ids", "target_ids"]
        pieces = _encoded(corpus, split, splits[split], directory, workshop, dropped)
        written[split] = write_pieces(directory / f"{split}.arrow", columns, pieces)
        if written[split].num_rows == 0:
            raise InputError(f"{corpus.place(split)}: no pair is within data.limits.{LIMITED[split]}")
    lengths = pc.min_max(pc.list_value_length(written[TRAIN].data["source_ids"])).as_py()
    facts = {
        "identity": corpus.identity(),
        "examples": {split: dataset.num_rows for split, dataset in written.items()},
        "dropped": {TRAIN: dropped[TRAIN]},
        "overlap": _overlap(written[TRAIN], written[TEST]),
        "training_lengths": [lengths["min"], lengths["max"]],
        "test_fingerprint": _content(written[TEST]),
    }
    if workshop.skipped:
        facts["skipped"] = dict(workshop.skipped)
    shutil.rmtree(workshop.work)
    files = sorted(path.name for path in directory.iterdir())
    write_json(directory / FACTS, facts | {FILES: make_manifest(directory, files)})
    shutil.rmtree(workshop.kept, ignore_errors=True)


def _encoded(
    corpus: Corpus, split: str, dataset: Dataset, directory: Path, workshop: Workshop, dropped: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """The rows of ``dataset`` that are within the limits, with their token ids; the others are counted.

    Raises:
        InputError: a row that validation and test cannot have; names it.
    """
    task = Task(
        rows=dataset.cache_files[0]["filename"],
        tokenizers={side: str(directory / f"{side}.json") for side in ("source", "target")},
        limits={side: corpus.limit(split, side) for side in ("source", "target")},
        long_is_bad=split != TRAIN,
    )
    for piece in encode(task, workshop.work):
        for name, wrong in piece.bad:
            corpus.skip(split, workshop, BadRowError(f"{corpus.where(split, name)}: {wrong}"))
        dropped[split] += piece.long
        yield piece.batch


def _share_unknown(dataset: Dataset, column: str) -> float:
    """The share of ``UNK`` among the ids of a column, which are read where they lie, piece by piece."""
    pieces = [chunk.flatten().to_numpy() for chunk in dataset.data[column].chunks]
    tokens = sum(len(piece) for piece in pieces)
    return sum(int((piece == UNK).sum()) for piece in pieces) / tokens


def _overlap(train: Dataset, test: Dataset) -> int:
    """Test rows whose source and target are a pair of training too."""
    tested = Counter((row["source"], row["target"]) for row in read_rows(test))
    trained = {pair for row in read_rows(train) if (pair := (row["source"], row["target"])) in tested}
    return sum(tested[pair] for pair in trained)


def _content(dataset: Dataset) -> str:
    """sha256 over the ids, sources and targets of all rows."""
    digest = hashlib.sha256()
    for row in read_rows(dataset):
        digest.update(json.dumps([row[column] for column in COLUMNS]).encode())
    return digest.hexdigest()
