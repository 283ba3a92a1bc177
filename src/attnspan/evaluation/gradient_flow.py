"""The gradient norms of finished runs, before and after training, on examples of their test split."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from attnspan.analysis.gradient_flow import INITIAL, TRAINED
from attnspan.data.alignment import GoldAlignment, Link
from attnspan.errors import InputError
from attnspan.runs.finished_run import Run

if TYPE_CHECKING:
    from attnspan.evaluation.gradient_norms import AlignedExample
    from attnspan.evaluation.loaded_run import LoadedRun


MAX_OUTPUTS = 12
"""The largest number of outputs measured in an example."""


def gold_links(run: Run, ids: Sequence[str], trusted: Sequence[str]) -> dict[str, list[Link]] | None:
    """The sure links of the examples ``ids``; None where the data has none."""
    from attnspan.config.instantiate import build_corpus, refuse_foreign_targets
    from attnspan.data.corpora.base import ALIGNMENT
    from attnspan.data.pipeline.prepare import prepare

    refuse_foreign_targets(run.config.get("data"), ("attnspan", *trusted))
    corpus = build_corpus(run.config)
    if not (getattr(corpus, "aligned", False) or getattr(corpus, "alignment", None)):
        return None  # without preparing the corpus: the records have its test split
    prepared = prepare(corpus, cache_dir=Path(os.environ.get("ATTNSPAN_CACHE") or run.config["cache_dir"]))
    if prepared.test_fingerprint != run.summary["test_fingerprint"]:
        raise InputError(f"{run.directory}: its test split is not the one that its data config describes today")
    if ALIGNMENT not in prepared.test.column_names:
        return None
    rows = {name: row for row, name in enumerate(prepared.test["id"])}
    found = {}
    for name in ids:
        example = prepared.test[rows[name]]
        S, T = len(example["source_ids"]), len(example["target_ids"])
        found[name] = sorted(
            GoldAlignment.parse(example[ALIGNMENT], location=name, source_length=S, target_length=T).sure
        )
    return found


def proportional_links(source_length: int, target_length: int) -> list[Link]:
    """In place of an alignment: each target position with the source position at the same fraction of the length."""
    return [((2 * t + 1) * source_length // (2 * target_length), t) for t in range(target_length)]


def measure_norms(
    run: Run, chosen: pd.DataFrame, gold: dict[str, list[Link]] | None, trusted: Sequence[str]
) -> pd.DataFrame:
    """Measure a run: one row for each state of training and link, with columns ``state``, ``steps`` and ``norm``."""
    from attnspan.evaluation.gradient_norms import gradient_norms, initial_model, steps_between
    from attnspan.evaluation.loaded_run import load_run  # torch takes seconds to load, and earlier errors need none

    loaded = load_run(run.directory, trusted=trusted)
    examples = list(_aligned(loaded, chosen, gold))
    rows = []
    for state, model in ((INITIAL, initial_model(loaded)), (TRAINED, loaded.model)):
        for example, norms in zip(examples, gradient_norms(model, examples, outputs=MAX_OUTPUTS), strict=True):
            for link, norm in norms.items():
                rows.append((state, steps_between(model.encoder, link, len(example.source)), norm))
    return pd.DataFrame(rows, columns=["state", "steps", "norm"])


def _aligned(loaded: LoadedRun, chosen: pd.DataFrame, gold: dict[str, list[Link]] | None) -> Iterator[AlignedExample]:
    from attnspan.evaluation.gradient_norms import AlignedExample

    for row in chosen.itertuples():
        source = loaded.source_tokenizer.encode(str(row.source))
        target = loaded.target_tokenizer.encode(str(row.reference))
        links = gold[str(row.example_id)] if gold else proportional_links(len(source), len(target))
        yield AlignedExample(source=source, target=target, links=links)
