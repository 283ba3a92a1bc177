"""The gold alignments of test examples, from the data that a run was trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from attnspan.config.instantiate import build_corpus, refuse_foreign_targets
from attnspan.data.alignment import GoldAlignment, Link
from attnspan.data.corpora.base import ALIGNMENT
from attnspan.data.pipeline.prepare import is_prepared, prepare
from attnspan.errors import InputError
from attnspan.runs.finished_run import Run


def gold_links(run: Run, ids: Sequence[str], trusted: Sequence[str]) -> dict[str, list[Link]] | None:
    """The sure links of the examples ``ids``; None where the data has none, or links to regions of images.

    Raises:
        InputError: the data cannot be prepared, or is no longer what the run was tested on.
    """
    refuse_foreign_targets(run.config.get("data"), ("attnspan", *trusted))
    corpus = build_corpus(run.config)
    if corpus.has_images or not (getattr(corpus, "aligned", False) or getattr(corpus, "alignment", None)):
        return None  # without preparing the corpus: the records have its test split
    prepared = prepare(corpus, cache_dir=_cache(run))
    if prepared.test_fingerprint != run.summary["test_fingerprint"]:
        raise InputError(f"{run.directory}: its test split is not the one that its data config describes today")
    if ALIGNMENT not in prepared.test.column_names:
        return None
    rows = {name: row for row, name in enumerate(prepared.test["id"])}
    found = {}
    for name in ids:
        if name not in rows:
            continue  # an evaluation has examples of its own
        example = prepared.test[rows[name]]
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
    if not is_prepared(str(run.summary.get("data_fingerprint")), cache_dir=_cache(run)):
        raise InputError(f"the data of {run.directory} is not in {_cache(run)} any more")
    return gold_links(run, ids, trusted) or {}


def _cache(run: Run) -> Path:
    return Path(os.environ.get("ATTNSPAN_CACHE") or run.config["cache_dir"])
