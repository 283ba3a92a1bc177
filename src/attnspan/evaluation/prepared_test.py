"""What records do not keep of decoded examples, gold alignments and images, from the data of a run or an evaluation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from attnspan.config.evaluation import EVALUATION
from attnspan.config.instantiate import build_corpus, refuse_foreign_targets
from attnspan.data.alignment import GoldAlignment, Link
from attnspan.data.arrow import without_pixels
from attnspan.data.corpora.base import ALIGNMENT, Corpus
from attnspan.data.images.columns import images_of
from attnspan.data.pipeline.evaluated_split import SplitRequest
from attnspan.data.pipeline.length_range import LengthRange
from attnspan.data.pipeline.prepare import is_prepared, prepare
from attnspan.errors import InputError
from attnspan.files import read_json
from attnspan.runs.finished_run import Run
from attnspan.runs.layout import SUMMARY, TOKENIZERS


def evaluated_examples(config: dict[str, Any], *, run: Path) -> SplitRequest:
    """The examples of an evaluation, tokenised by the tokenizers of its run; nothing is read yet.

    Args:
        config: of the evaluation.
        run: the directory of the run.

    Raises:
        InputError: the corpus or the range of lengths is wrong.
    """
    asked = config[EVALUATION]
    summary = read_json(run / SUMMARY)
    trained = {"source": summary.get("training_lengths"), "target": summary.get("training_target_lengths")}
    longest = {side: lengths and lengths[1] for side, lengths in trained.items()}
    return SplitRequest(
        corpus=build_corpus(asked),
        split=asked["split"],
        tokenizers=run / TOKENIZERS,
        lengths=None if asked["length"] is None else LengthRange.parse(asked["length"], longest),
        cache_dir=Path(config["cache_dir"]).expanduser(),
    )


def gold_links(run: Run, ids: Sequence[str], trusted: Sequence[str]) -> dict[str, list[Link]] | None:
    """The sure links of the examples ``ids``; None where the data has none, or links to regions of images.

    Raises:
        InputError: the data cannot be prepared, or is no longer what the run was tested on.
    """
    corpus = _corpus(run, trusted)
    if corpus.has_images or not (getattr(corpus, "aligned", False) or getattr(corpus, "alignment", None)):
        return None  # without preparing the corpus: the records have its test split
    test = _test(run, corpus)
    if ALIGNMENT not in test.column_names:
        return None
    rows = {name: row for row, name in enumerate(test["id"])}
    found = {}
    for name in ids:
        if name not in rows:
            continue
        example = test[rows[name]]
        S, T = len(example["source_ids"]), len(example["target_ids"])
        found[name] = sorted(
            GoldAlignment.parse(example[ALIGNMENT], location=name, source_length=S, target_length=T).sure
        )
    return found


def kept_gold_links(run: Run, ids: Sequence[str], trusted: Sequence[str]) -> dict[str, list[Link]]:
    """The sure links of the examples ``ids``, if the prepared data is still in its cache; nothing is prepared anew.

    Raises:
        InputError: it is gone, or is no longer what the run was tested on.
    """
    _refuse_gone(run, trusted)
    return gold_links(run, ids, trusted) or {}


def kept_images(run: Run, ids: Sequence[str], trusted: Sequence[str]) -> list[Any]:
    """The images of the examples ``ids``, as :meth:`LoadedRun.decode` takes them, from data that is still prepared.

    Raises:
        InputError: it is gone, is no longer what the run was tested on, or has not all of these examples.
    """
    _refuse_gone(run, trusted)
    test = _test(run, _corpus(run, trusted))
    rows = {name: row for row, name in enumerate(without_pixels(test)["id"])}
    if missing := [name for name in ids if name not in rows]:
        raise InputError(f"{run.directory}: example '{missing[0]}' is not in its test split")
    return images_of(test, [rows[name] for name in ids])


def _corpus(run: Run, trusted: Sequence[str]) -> Corpus:
    config = _described(run)
    refuse_foreign_targets(config.get("data"), ("attnspan", *trusted))
    return build_corpus(config)


def _test(run: Run, corpus: Corpus) -> Dataset:
    if run.evaluation is None:
        prepared = prepare(corpus, cache_dir=_cache(run))
        examples, fingerprint = prepared.test, prepared.test_fingerprint
    else:
        split = _evaluated(run).prepare()
        examples, fingerprint = split.examples, split.facts["test_fingerprint"]
    if fingerprint != run.summary["test_fingerprint"]:
        raise InputError(f"{run.directory}: its test split is not the one that its data config describes today")
    return examples


def _refuse_gone(run: Run, trusted: Sequence[str]) -> None:
    if run.evaluation is None:
        there = is_prepared(str(run.summary.get("data_fingerprint")), cache_dir=_cache(run))
    else:
        refuse_foreign_targets(_described(run).get("data"), ("attnspan", *trusted))
        there = _evaluated(run).is_prepared
    if not there:
        raise InputError(f"the data of {run.directory} is not in {_cache(run)} any more")


def _described(run: Run) -> dict[str, Any]:
    """The part of the config that says what was decoded: an evaluation has data of its own."""
    described: dict[str, Any] = run.config if run.evaluation is None else run.config[EVALUATION]
    return described


def _evaluated(run: Run) -> SplitRequest:
    return evaluated_examples({**run.config, "cache_dir": str(_cache(run))}, run=run.trained_in)


def _cache(run: Run) -> Path:
    return Path(os.environ.get("ATTNSPAN_CACHE") or run.config["cache_dir"])
