"""What W&B is shown of the results: of a run when it is tested, of a study when its report is written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from attnspan.collect import Run, collect
from attnspan.examples import DEGENERATE, attended
from attnspan.heatmap import Heatmap
from attnspan.heatmap_plot import draw, small_png
from attnspan.measures import ERROR_RATE
from attnspan.study import Study, build_study
from attnspan.tables import differences_frame, points_frame, spans_frame

EXAMPLES = 12
"""Test examples of a run that W&B is shown, spread evenly by length, beside the maps that the run kept."""


def mirror_results(run: Any, directory: Path) -> None:
    """Show quality by length, the span and some examples of a finished run.

    Args:
        run: the W&B run.
        directory: of ours, whose summary is written.
    """
    study = build_study(collect([directory]))
    ours = study.collection.runs[0]
    run.summary.update({f"test/{name}": value for name, value in ours.summary["test"].items()})
    for name in ("parameters", "tokens_per_second", "decode_tokens_per_second", "peak_memory_mb", "wall_seconds"):
        run.summary[f"cost/{name}"] = ours.summary[name]
    for one in study.spans:  # of one arm, so against its own quality on the shortest sources
        run.summary["test/span"] = one.span.length.tokens
        run.summary["test/span_in_words"] = str(one.span.length)
    for name in DEGENERATE:
        run.summary[f"failures/{name}"] = float(ours.records[name].mean())
    run.define_metric("by_length/*", step_metric="by_length/source_length")  # so that seeds and arms share its axis
    for point in study.curve:
        if not point.region.total:
            values = {metric: estimate.value for metric, estimate in point.metrics.items()}
            values |= {"source_length": point.region.mean_length, "examples": point.region.examples}
            run.log({f"by_length/{name}": value for name, value in values.items()})
    run.log(
        {
            "quality by length": _table(points_frame(study.curve)),
            "error rate by length": _lines(study),
            "examples": _examples(ours),
            **_maps(study),
        }
    )


def mirror_study(run: Any, study: Study, out: Path, *, within: str = "") -> None:
    """Show the comparing plots and tables of a study.

    Args:
        run: the W&B run of the study.
        study: that was reported.
        out: directory of the report.
        within: what the names begin with, where the run shows several studies.
    """
    import wandb

    pictures = {f"plots/{path.stem}": wandb.Image(str(path)) for path in sorted(out.glob("*.png"))}
    tables = {
        "quality by length": points_frame(study.curve),
        "advantage over the baseline": differences_frame(study),
        "spans": spans_frame(study),
    }
    shown = pictures | {name: _table(frame) for name, frame in tables.items() if len(frame)} | _maps(study)
    shown["error rate by length"] = _lines(study)
    run.log({f"{within}{name}": one for name, one in shown.items()})


def _lines(study: Study) -> Any:
    """Error rate against source length, a line an arm."""
    import wandb

    curves = {arm.label: [p for p in study.curve if p.arm == arm.label and not p.region.total] for arm in study.arms}
    return wandb.plot.line_series(
        xs=[[point.region.mean_length for point in points] for points in curves.values()],
        ys=[[point.metrics[ERROR_RATE].value for point in points] for points in curves.values()],
        keys=list(curves),
        title="error rate by source length",
        xname="source length (tokens)",
    )


def _examples(run: Run) -> Any:
    """A few test examples."""
    records = run.records  # sorted by length
    rows = np.unique(np.linspace(0, len(records) - 1, EXAMPLES).round().astype(int))
    return _table(records.iloc[rows][["example_id", "source_length", "source", "reference", "hypothesis", "edits"]])


def _maps(study: Study) -> dict[str, Any]:
    """Where attention went on the examples of which runs kept it, under every arm."""
    import wandb

    return {
        f"attention/{one.arm}, {example.source_length} source tokens": wandb.Image(_picture(one.heatmap, one.arm))
        for example in attended(study)
        for one in example.maps
        if one.heatmap is not None
    }


def _picture(heatmap: Heatmap, arm: str) -> Image.Image:
    content, _, _ = small_png(draw(heatmap, title=[arm]))
    return Image.open(io.BytesIO(content)).convert("RGB")


def _table(frame: pd.DataFrame) -> Any:
    import wandb

    return wandb.Table(dataframe=frame)
