"""The results of a finished run on W&B, computed from its records by the code that makes reports."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from PIL import Image

from attnspan.analysis.collection import collect
from attnspan.analysis.study import build_study
from attnspan.reporting.heatmap_figure import draw, small_png
from attnspan.runs.attention_maps import AttentionMap, read_attention_maps
from attnspan.runs.finished_run import Run
from attnspan.tracking.session import TEST_BY

_SUMMARY_KEYS = (
    "parameters", "updates", "best_update", "best_validation_loss", "wall_seconds", "train_seconds",
    "validation_seconds", "test_seconds", "tokens_per_second", "decode_tokens_per_second", "peak_memory_mb", "device",
    "git_commit",
)  # fmt: skip
"""The keys of the run's summary that are logged."""


def results_of(directory: Path, *, examples: int) -> tuple[list[dict[str, float]], dict[str, Any], dict[str, Any]]:
    """The results of the run in ``directory``: one row per length bin, the shortest first; media; the summary.

    ``examples`` is the number of test examples to show, at most.

    Raises:
        InputError: the run is not finished.
    """
    study = build_study(collect([directory]))
    (run,) = study.collection.runs
    points = [point for point in study.curve if not point.region.total]
    attention = {point.region: point.metrics for point in study.attention}
    metrics = [point.metrics | attention.get(point.region, {}) for point in points]
    measured = [
        {"length": point.region.mean_length, **{name: estimate.value for name, estimate in estimates.items()}}
        for point, estimates in zip(points, metrics, strict=True)
    ]
    regions = [(point.region.label, point.region.side, point.region.examples) for point in points]
    table = wandb.Table(
        columns=[study.axis.unit, "side", "examples", *measured[0]],
        data=[[*region, *values.values()] for region, values in zip(regions, measured, strict=True)],
    )
    rates = [metric.name for metric in study.quality_metrics if not metric.unit]
    plot = wandb.plot.line_series(
        xs=[values["length"] for values in measured],
        ys=[[values[name] for values in measured] for name in rates],
        keys=rates,
        title=f"Quality by {study.axis.noun}",
        xname=study.axis.unit,
    )
    summary = {name: run.summary.get(name) for name in _SUMMARY_KEYS}
    summary |= {f"test/{name}": value for name, value in run.summary["test"].items()}
    for one in study.spans:  # of one arm, so against its own quality on the shortest sources
        span = one.span
        each = {study.axis.key: span.length, "low": span.low, "high": span.high}
        summary |= {f"span/{name}": length.value for name, length in each.items()}
        summary["span/in_words"] = f"{span.length} {study.axis.unit} ({span.low} to {span.high})"
    rows = [{f"{TEST_BY}{study.axis.key}/{name}": value for name, value in values.items()} for values in measured]
    return rows, {"test/by_length": table, "quality_by_length": plot, **_examples(run, examples)}, summary


def captioned(heatmap: AttentionMap, *, title: Sequence[str], caption: str) -> wandb.Image:
    """An attention map as an image for W&B."""
    png, *_ = small_png(draw(heatmap, title=title))
    return wandb.Image(Image.open(io.BytesIO(png)), caption=caption)


def _examples(run: Run, count: int) -> dict[str, Any]:
    """Examples, the shortest first: those with attention maps, then others evenly spread by length."""
    if not count:
        return {}
    maps = read_attention_maps(run.directory) or {}
    ids = run.records["example_id"]  # by length
    spread = ids.iloc[np.linspace(0, len(ids) - 1, min(count, len(ids)), dtype=int)]
    chosen = list(dict.fromkeys([*maps, *spread]))[:count]
    columns = ["example_id", "source_length", "edits", "source", "reference", "hypothesis"]
    table, pictures = wandb.Table(columns=[*columns, "attention"]), dict[str, Any]()
    for record in run.records[ids.isin(chosen)].to_dict("records"):
        name, image = record["example_id"], None
        if name in maps:
            caption = f"{name}, {record['source_length']} source tokens"
            image = captioned(maps[name], title=[f"{run.arm}, seed {run.seed}", name], caption=caption)
            pictures[f"test/attention_{len(pictures) + 1}"] = image
        table.add_data(*(record[column] for column in columns), image)
    return {"test/examples": table, **pictures}  # in W&B all images of one key must have one size
