"""What the explorer draws of a study: curves against length, and how the runs learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from attnspan.analysis.learning import learning_curves, validations
from attnspan.analysis.lengths.regions import Region
from attnspan.analysis.metrics import METRICS, Metric
from attnspan.analysis.study import Point, Study
from attnspan.analysis.text_metrics import PERPLEXITIES
from attnspan.data.corpora.base import SIDES
from attnspan.reporting.formatting import in_groups

_MOST_VALIDATIONS = 200
"""Of one run, in its curve."""


def rounded(value: float) -> float | None:
    """Five significant digits; None for a number that is not finite."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def metric_entries(study: Study) -> list[dict[str, Any]]:
    """The metrics that are known of any arm, in the order in which a reader chooses one."""
    known = {name for point in study.points for name in point.metrics}
    return [
        {"name": one.name, "title": one.title, "label": one.label or one.title, "digits": one.digits}
        for one in _metrics(study)
        if one.name in known
    ]


def _metrics(study: Study) -> list[Metric]:
    return [*dict.fromkeys([study.metric, *METRICS, *study.own, *study.corpus_scores, *PERPLEXITIES])]


def axis_entries(study: Study, rows: Sequence[int], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """The study by the length that its report goes by, then by the other ones in tokens.

    Args:
        study: of the report.
        rows: of the test set: the examples that the explorer has, in its order.
        metrics: the names of those that it shows.
    """
    # Corpus scores take seconds, and only the report's own bins have them.
    others = [replace(study.by(side), text=False) for side in SIDES if side != study.axis.name]
    return [_axis(one, rows, metrics) for one in (study, *others)]


def _axis(study: Study, rows: Sequence[int], metrics: Sequence[str]) -> dict[str, Any]:
    axis = study.axis
    bins: dict[tuple[str, str, bool, bytes], int] = {}
    entries: list[dict[str, Any]] = []
    points = []
    for point in study.points:
        region = point.region
        key = (region.label, region.side, region.total, region.inside.tobytes())
        if key not in bins:
            bins[key] = len(entries)
            entries.append(_bin(region, rows))
        values = {metrics.index(name): _values(study, point, name) for name in point.metrics if name in metrics}
        points.append([_place(study, point.arm), bins[key], values])
    ranges = {lengths for arm in study.arms for run in arm.runs if (lengths := run.training_lengths_on(axis.side))}
    trained = [[rounded(float(one)) for one in axis.in_units(np.array(lengths))] for lengths in sorted(ranges)]
    return {
        "name": axis.name, "noun": axis.noun, "title": axis.title, "unit": axis.unit, "edges": list(study.bins.edges),
        "trained": trained, "bins": entries, "points": points,
    }  # fmt: skip


def _place(study: Study, label: str) -> int:
    """The place of an arm among those of the explorer."""
    return [arm.label for arm in study.arms].index(label)


def _bin(region: Region, rows: Sequence[int]) -> dict[str, Any]:
    """A bin, with the places of its examples among ``rows``."""
    members = [place for place, row in enumerate(rows) if region.inside[row]]
    return {
        "label": region.label, "side": region.side, "total": region.total, "words": region.in_words,
        "above": region.above, "upTo": region.up_to, "mean": rounded(region.mean_length), "n": region.examples,
        "examples": members,
    }  # fmt: skip


def _values(study: Study, point: Point, metric: str) -> list[Any]:
    """Value, both ends of the interval, the value of each seed, and where the seeds fall into groups, these in words.

    Groups have no interval, as in the report.
    """
    one, by_seed = point.metrics[metric], point.by_seed[metric]
    dots = [rounded(float(seed)) for seed in by_seed]
    groups = study.groups_in(point.region.side, point.arm)
    if groups is None:
        return [*map(rounded, (one.value, one.low, one.high)), dots]
    digits = next(known.digits for known in _metrics(study) if known.name == metric)
    return [rounded(one.value), None, None, dots, in_groups(by_seed, point.seeds, groups, digits)]


def training_entries(study: Study) -> dict[str, Any]:
    """The loss of every validation of every run, and the error by length over training of every arm."""
    losses = [
        {"arm": _place(study, arm.label), "seed": run.seed, "points": _thinned(validations(run))}
        for arm in study.arms
        for run in arm.runs
    ]
    curves = learning_curves(study.arms)
    sides = {point.side for some in curves.values() for point in some}
    return {
        "losses": [one for one in losses if one["points"]],
        "side": next(iter(sides), ""),
        "errors": [
            {"arm": _place(study, label), "points": [_learned(point.updates, point.rates) for point in points]}
            for label, points in curves.items()
            if points
        ],
    }


def _thinned(points: Sequence[tuple[int, float]]) -> list[list[float | None]]:
    step = max(1, math.ceil(len(points) / _MOST_VALIDATIONS))
    kept = [*points[::step], *(points[-1:] if step > 1 else ())]
    return [[update, rounded(loss)] for update, loss in kept]


def _learned(updates: float, rates: Mapping[str, float]) -> dict[str, Any]:
    return {"updates": round(updates), "rates": [[label, rounded(rate)] for label, rate in rates.items()]}
