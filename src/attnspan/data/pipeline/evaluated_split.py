"""One split of a corpus, tokenised by the tokenizers of a finished run, for its evaluation.

The cache is the directory ``<cache_dir>/<fingerprint>/`` with ``prepared.json`` and ``examples.arrow``
(:mod:`attnspan.data.pipeline.cache`). Runs with the same tokenizers share it. The other splits are not read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from attnspan.checksums import sha256
from attnspan.data.arrow import lengths_of_side, map_dataset, read_rows, silence_datasets, write_batches
from attnspan.data.corpora.base import LIMITS_KEY, SIDES, BuildContext, Corpus
from attnspan.data.images.reader import ImageReader
from attnspan.data.pipeline.cache import FACTS, Damage, open_cache, refuse_damage, write_facts
from attnspan.data.pipeline.length_range import LengthRange
from attnspan.data.pipeline.prepare import FORMAT, hash_examples, provenance, tokenized, unknown_token_rates
from attnspan.data.source_reader import load_source_reader
from attnspan.data.tokenizer import UNK, Tokenizer
from attnspan.errors import InputError
from attnspan.files import read_json

_EXAMPLES = "examples.arrow"
_SHOWN = 5
"""The most unknown symbols that a warning names."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedSplit:
    """The examples of an evaluation, memory-mapped."""

    name: str
    """train, validation or test."""
    examples: Dataset
    facts: dict[str, Any]
    """``dropped``, ``skipped``, ``remarks``, ``split_files``, ``test_fingerprint``, and ``unknown_symbols``: side to
    (symbol, count), most first."""
    directory: Path
    """Of the cache; its name is the sha256 of everything that determines the examples and their tokens."""
    damage: Damage

    @property
    def fingerprint(self) -> str:
        """The name of the cache."""
        return self.directory.name

    def check_integrity(self, *, wait: bool) -> None:
        """See :func:`attnspan.data.pipeline.cache.refuse_damage`."""
        refuse_damage(self.directory, self.damage, wait=wait)

    def unknown_token_rates(self) -> dict[str, float]:
        """Side to the fraction of its tokens that are ``<unk>``."""
        return unknown_token_rates(self.examples)

    def warnings(self) -> list[str]:
        """Where the examples come from, and what limits the validity of results on them, one line each."""
        lines = provenance(self.facts.get("split_files", {}), self.facts.get("remarks", []))
        lines += [
            f"{self.name}: {self.facts[fact]} {words}"
            for fact, words in (
                ("dropped", f"pairs are longer than data.limits.{LIMITS_KEY[self.name]} and were dropped"),
                ("skipped", "unusable rows were skipped"),
            )
            if self.facts[fact]
        ]
        rates = self.unknown_token_rates()
        for side, symbols in self.facts["unknown_symbols"].items():
            if symbols:
                shown = ", ".join(f"{symbol!r} ({count})" for symbol, count in symbols[:_SHOWN])
                more = f" and {len(symbols) - _SHOWN} others" if len(symbols) > _SHOWN else ""
                what = f"{rates[side]:.2%} of the {side} tokens are not in the run's vocabulary"
                lines.append(f"{self.name}: {what}: {shown}{more}")
        return lines


@dataclass(frozen=True, kw_only=True)
class SplitRequest:
    """What determines the examples of an evaluation and their tokens."""

    corpus: Corpus
    split: str
    """train, validation or test."""
    tokenizers: Path
    """The directory of ``source.json`` and ``target.json``."""
    lengths: LengthRange | None
    """Of one side; None for all."""
    cache_dir: Path
    """Of all caches."""

    @cached_property
    def directory(self) -> Path:
        """The cache, built or not.

        Raises:
            InputError: the corpus has no such split, or the run reads texts and the corpus has images, or the reverse.
        """
        self.corpus.check([self.split])
        if self.corpus.has_images != isinstance(load_source_reader(self.tokenizers / "source.json"), ImageReader):
            reads, are = ("texts", "images") if self.corpus.has_images else ("images", "texts")
            raise InputError(f"data: the run reads {reads}, and the sources of this data are {are}")
        with silence_datasets():
            identity = {
                "format": FORMAT,
                "split": self.split,
                "corpus": self.corpus.identity([self.split]),
                "tokenizers": {side: sha256(self.tokenizers / f"{side}.json") for side in SIDES},
                "lengths": None if self.lengths is None else self.lengths.identity,
            }
        return self.cache_dir / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def is_prepared(self) -> bool:
        """Whether the cache is there."""
        return (self.directory / FACTS).is_file()

    def prepare(self) -> EvaluatedSplit:
        """Open the cache; build it if it is missing or damaged.

        Raises:
            InputError: the corpus or a file is unusable, or no example is left; there is no cache then.
        """
        directory = self.directory
        damage = open_cache(
            directory, lambda empty: _fill(empty, self.corpus, self.split, self.tokenizers, self.lengths)
        )
        with silence_datasets():
            examples = map_dataset(directory / _EXAMPLES)
        facts = read_json(directory / FACTS)
        return EvaluatedSplit(name=self.split, examples=examples, facts=facts, directory=directory, damage=damage)


def _fill(directory: Path, corpus: Corpus, split: str, tokenizers: Path, lengths: LengthRange | None) -> None:
    context = BuildContext(scratch=directory / "scratch", downloads=directory.with_name(f"{directory.name}.downloads"))
    context.scratch.mkdir()
    built = corpus.load(context, [split])[split]
    if built.num_rows == 0:
        raise InputError(f"{corpus.split_location(split)}: the {split} split is empty")
    batches = tokenized(corpus, split, built, tokenizers=tokenizers, context=context)
    found: list[int] = []
    columns = [*built.column_names, *(f"{side}_ids" for side in corpus.tokenizations())]
    written = write_batches(directory / _EXAMPLES, columns, _of_lengths(batches, lengths, found))
    if written.num_rows == 0:
        where = corpus.split_location(split)
        if not found:
            raise InputError(f"{where}: no pair is within data.limits.{LIMITS_KEY[split]}")
        side = lengths.side if lengths else "source"
        there = f"its {side}s have {min(found)} to {max(found)} tokens"
        raise InputError(f"length: no {side} of {where} is so long; {there}")
    facts = {
        "identity": corpus.identity([split]),
        "dropped": context.dropped[split],
        "skipped": context.skipped[split],
        "remarks": context.remarks,
        "split_files": context.files,
        "test_fingerprint": hash_examples(written),
        "unknown_symbols": {side: _unknown_symbols(written, side, tokenizers) for side in corpus.tokenizations()},
    }
    shutil.rmtree(context.scratch)
    write_facts(directory, facts)
    shutil.rmtree(context.downloads, ignore_errors=True)


def _of_lengths(
    batches: Iterator[pa.RecordBatch], lengths: LengthRange | None, found: list[int]
) -> Iterator[pa.RecordBatch]:
    """The rows whose source or target has one of ``lengths``; the lengths of all rows are added to ``found``."""
    for batch in batches:
        tokens = lengths_of_side(batch, lengths.side if lengths else "source").tolist()
        found += tokens
        yield batch if lengths is None else batch.filter(pa.array([count in lengths for count in tokens]))


def _unknown_symbols(examples: Dataset, side: str, tokenizers: Path) -> list[tuple[str, int]]:
    """The symbols of ``side`` that the vocabulary lacks, with their counts, the most frequent first."""
    tokenizer = Tokenizer.load(tokenizers / f"{side}.json")
    counts: Counter[str] = Counter()
    for row in read_rows(examples.select_columns([side, f"{side}_ids"])):
        if UNK in row[f"{side}_ids"]:
            counts.update(tokenizer.unknown_tokens(row[side]))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
