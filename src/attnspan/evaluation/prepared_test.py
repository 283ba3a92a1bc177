"""What records do not keep of test examples, from the data that a run was prepared with: gold alignments, images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from attnspan.config.instantiate import build_corpus, refuse_foreign_targets
from attnspan.data.alignment import GoldAlignment, Link
from attnspan.data.arrow import without_pixels
from attnspan.data.corpora.base import ALIGNMENT, Corpus
from attnspan.data.images.columns import images_of
from attnspan.data.pipeline.prepare import is_prepared, prepare
from attnspan.errors import InputError
from attnspan.runs.finished_run import Run


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
            continue  # an evaluation has examples of its own
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
    _refuse_gone(run)
    return gold_links(run, ids, trusted) or {}


def kept_images(run: Run, ids: Sequence[str], trusted: Sequence[str]) -> list[Any]:
    """The images of the examples ``ids``, as :meth:`LoadedRun.decode` takes them, from data that is still prepared.

    Raises:
        InputError: it is gone, is no longer what the run was tested on, or has not all of these examples.
    """
    _refuse_gone(run)
    test = _test(run, _corpus(run, trusted))
    rows = {name: row for row, name in enumerate(without_pixels(test)["id"])}
    if missing := [name for name in ids if name not in rows]:
        raise InputError(f"{run.directory}: example '{missing[0]}' is not in its test split")
    return images_of(test, [rows[name] for name in ids])


def _corpus(run: Run, trusted: Sequence[str]) -> Corpus:
    refuse_foreign_targets(run.config.get("data"), ("attnspan", *trusted))
    return build_corpus(run.config)


def _test(run: Run, corpus: Corpus) -> Dataset:
    prepared = prepare(corpus, cache_dir=_cache(run))
    if prepared.test_fingerprint != run.summary["test_fingerprint"]:
        raise InputError(f"{run.directory}: its test split is not the one that its data config describes today")
    return prepared.test


def _refuse_gone(run: Run) -> None:
    if not is_prepared(str(run.summary.get("data_fingerprint")), cache_dir=_cache(run)):
        raise InputError(f"the data of {run.directory} is not in {_cache(run)} any more")


def _cache(run: Run) -> Path:
    return Path(os.environ.get("ATTNSPAN_CACHE") or run.config["cache_dir"])
