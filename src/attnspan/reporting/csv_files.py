"""The numbers of a study as data frames, one per csv file of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from attnspan.analysis.learning import is_still_improving, learning_curves
from attnspan.analysis.lengths.regions import Region
from attnspan.analysis.statistics import Estimate
from attnspan.analysis.study import Point, Study
from attnspan.runs.summary import ends_at_chance

CURVE, TRAINING, DIFFERENCES, SPANS = "curve.csv", "training.csv", "differences.csv", "spans.csv"


def csv_texts(frames: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """File name -> content of the csv files."""
    return {name: frame.to_csv(index=False, float_format="%.6g") for name, frame in frames.items()}


def csv_files(study: Study) -> dict[str, pd.DataFrame]:
    """File name -> content; the files on attention and on text only where there is any."""
    files = {
        CURVE: points_frame(study, study.curve),
        "seeds.csv": _seeds_frame(study, study.curve),
        DIFFERENCES: _differences_frame(study),
        SPANS: _spans_frame(study),
        "trends.csv": _trends_frame(study),
        TRAINING: _training_frame(study),
    }
    if learned := _learning_frame(study):
        files |= {"learning.csv": pd.DataFrame(learned)}
    for name, points in (("attention", study.attention), ("text", study.translation)):
        if points:
            files |= {f"{name}.csv": points_frame(study, points), f"{name}_seeds.csv": _seeds_frame(study, points)}
    return files


def points_frame(study: Study, points: Sequence[Point]) -> pd.DataFrame:
    """curve.csv, attention.csv and text.csv: one row per arm and region."""
    rows = []
    for point in points:
        row = {"arm": study.arm(point.arm).variant, **_region_columns(point.region), "seeds": len(point.seeds)}
        for metric, estimate in point.metrics.items():
            row |= _interval(metric, estimate)
        rows.append(row)
    return pd.DataFrame(rows)


def _seeds_frame(study: Study, points: Sequence[Point]) -> pd.DataFrame:
    """seeds.csv, attention_seeds.csv and text_seeds.csv: one row per arm, region and seed, without intervals."""
    rows = []
    for point in points:
        for s, seed in enumerate(point.seeds):
            values = {metric: by_seed[s] for metric, by_seed in point.by_seed.items()}
            rows.append({"arm": study.arm(point.arm).variant, "seed": seed, **_region_columns(point.region), **values})
    return pd.DataFrame(rows)


def _differences_frame(study: Study) -> pd.DataFrame:
    """differences.csv: one row per compared arm and region."""
    tests = ("p", "p_holm", "p_models", "p_models_holm")
    rows = []
    for one in study.differences:
        advantage = (one.advantage.value, one.advantage.low, one.advantage.high)
        region = _region_columns(one.region).values()
        names = (study.arm(label).variant for label in (one.arm, one.baseline))
        rows.append((*names, *region, len(one.seeds), study.metric.name, *advantage, *(getattr(one, p) for p in tests)))
    return pd.DataFrame(
        rows, columns=["arm", "baseline", *_REGION, "seeds", "metric", "advantage", "low", "high", *tests]
    )


def _spans_frame(study: Study) -> pd.DataFrame:
    """spans.csv: one row per arm; a censored length is the limit, with ``>`` or ``<`` in the column next to it."""
    rows = []
    for one in study.spans:
        row: dict[str, Any] = {"arm": study.arm(one.arm).variant, "length": study.axis.name}
        for name, length in (("span", one.span.length), ("low", one.span.low), ("high", one.span.high)):
            row |= {name: length.value, f"{name}_censored": length.censored}
        threshold = {"keep": study.keep, "threshold": one.span.threshold, "threshold_arm": study.arm(one.best).variant}
        rows.append({**row, **threshold, "seeds": len(one.seeds), "metric": study.metric.name})
    return pd.DataFrame(rows)


def _trends_frame(study: Study) -> pd.DataFrame:
    """trends.csv: one row per arm and side; none where no side has two bins."""
    of_row, estimates = ("arm", "baseline", "side", "bins"), ("factor", "relative_drop", "growth")
    ends = [column for name in estimates for column in (name, f"{name}_low", f"{name}_high")]
    rows = []
    for one in study.trends:
        row: dict[str, Any] = {name: getattr(one, name) for name in of_row}
        row["arm"] = study.arm(one.arm).variant
        row["baseline"] = study.arm(one.baseline).variant if one.baseline else None
        row |= {"length": study.axis.name, "per": study.axis.per, "seeds": len(one.seeds)}
        row["metric"] = study.metric.name
        for name in estimates:
            row |= _interval(name, getattr(one, name))
        rows.append(row)
    return pd.DataFrame(rows, columns=[*of_row, "length", "per", "seeds", "metric", *ends])


_TRAINING = ("updates", "ended_by", "plateau_update", "decay_update", "training_examples", "train_seconds",
             "best_update", "best_validation_loss", "final_training_loss", "final_validation_loss", "uniform_loss",
             "last_doubling_gain")  # fmt: skip
"""What training.csv has of a summary."""


def _training_frame(study: Study) -> pd.DataFrame:
    """training.csv: one row per run, how its training went and ended."""
    return pd.DataFrame(
        {
            "arm": arm.variant,
            "seed": run.seed,
            "still_improving": is_still_improving(run),
            "ends_at_chance": ends_at_chance(run.summary),
        }
        | {key: run.summary.get(key) for key in _TRAINING}
        for arm in study.arms
        for run in arm.runs
    )


def _learning_frame(study: Study) -> list[dict[str, Any]]:
    """learning.csv: one row per arm, point of its training and bin of validation, means over its runs."""
    return [
        {"arm": study.arm(arm).variant, "updates": point.updates, "end": point.is_end, "train_seconds": point.seconds}
        | {"length": point.side, "lengths": label, "error_rate": rate}
        for arm, points in learning_curves(study.arms).items()
        for point in points
        for label, rate in point.rates.items()
    ]


def _interval(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


_REGION = ("length", "lengths", "side", "total", "above", "up_to", "mean_length", "examples")
"""Which length it is, the bin in words, and so on."""


def _region_columns(region: Region) -> dict[str, Any]:
    values = {"length": region.axis.name, "lengths": region.label}
    return values | {name: getattr(region, name) for name in _REGION if name not in values}
