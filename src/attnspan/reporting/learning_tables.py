"""Tables on how the arms of a study learned."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

from attnspan.analysis.arms import Arm
from attnspan.analysis.collection import differing_keys, setting
from attnspan.analysis.learning import (
    LearningPoint,
    common_loss,
    ended_at,
    last_doubling,
    learning_curves,
    relative_to,
    time_to_loss,
    to_plateau,
    validations,
)
from attnspan.analysis.study import Study
from attnspan.reporting.formatting import NONE, duration, number, with_interval
from attnspan.reporting.tables import Row, Table
from attnspan.runs.finished_run import Run

_NOT_TUNED = ("decoder", "arm", "encoder", "rnn", "data")
"""Keys that make the arm or the task, and are not a setting of its training."""


def training(study: Study) -> Table:
    """Why the training of each arm ended, what it took to the plateau, and what the last doubling of updates gained."""
    baseline = study.arm(study.arms[0].label)
    rows = [
        Row(
            (
                study.shown(arm.label),
                _ended_by(arm),
                _until_plateau(arm, "updates", lambda value: f"{value:,.0f}"),
                _until_plateau(arm, "examples", lambda value: f"{value:,.0f}"),
                _until_plateau(arm, "seconds", duration),
                with_interval(relative_to(arm, baseline, "updates"), 2),
                with_interval(relative_to(arm, baseline, "seconds"), 2),
                _mean_gain(arm),
                *_settings(study, arm),
            )
        )
        for arm in study.arms
    ]
    columns = (
        "arm", "training ended at", "updates to the plateau", "examples", "training time",
        f"updates relative to {baseline.label}", f"time relative to {baseline.label}", "gain of the last doubling",
        *([] if not _tuned(study) else ["settings of its own"]),
    )  # fmt: skip
    caption = (
        "Training until the plateau, mean over the runs of an arm (more than: the cap ended it); the gain of the last "
        "doubling is the share by which the second half of all updates lowered the validation loss"
    )
    return Table(caption, columns, tuple(rows))


def _ended_by(arm: Arm) -> str:
    ends = Counter(ended_at(run) for run in arm.runs)
    return next(iter(ends)) if len(ends) == 1 else ", ".join(f"{n} at {end}" for end, n in sorted(ends.items()))


def _until_plateau(arm: Arm, quantity: str, style: Callable[[float], str]) -> str:
    """The mean over the runs, or a bound where one of them has no plateau."""
    found = [to_plateau(run) for run in arm.runs]
    if all(found):
        return style(statistics.fmean(one[quantity] for one in found if one))
    keys = {"updates": "updates", "examples": "training_examples", "seconds": "train_seconds"}
    whole = [run.summary.get(keys[quantity]) for run in arm.runs]
    known = [value for value in whole if value is not None]
    return f"> {style(statistics.fmean(known))}" if len(known) == len(whole) else NONE


def _mean_gain(arm: Arm) -> str:
    gains = [run.summary.get("last_doubling_gain") for run in arm.runs]
    known = [gain for gain in gains if gain is not None]
    return f"{statistics.fmean(known):.0%}" if known else NONE


def _tuned(study: Study) -> list[str]:
    """The settings in which the training of arms differs, such as the learning rate."""
    keys = differing_keys([arm.runs[0] for arm in study.arms])
    return [key for key in keys if key.partition(".")[0] not in _NOT_TUNED]


def _settings(study: Study, arm: Arm) -> list[str]:
    keys = _tuned(study)
    return [", ".join(setting(arm.runs[0], key, study.collection.files) for key in keys)] if keys else []


def settings_by_validation(study: Study) -> Table:
    """The variants of each arm by what validation said of them, the best first; no rows where no arm has variants.

    It is what a search chooses by. The test has no part in it.
    """
    rows = []
    for name in dict.fromkeys(arm.name for arm in study.arms):
        variants = [(_validated(arm), arm) for arm in study.arms if arm.name == name]
        if len(variants) < 2:
            continue
        rows.append(Row((name,), "heading"))
        variants.sort(key=lambda one: math.inf if math.isnan(one[0]) else one[0])
        for value, arm in variants:
            dagger = study.shown(arm.label).removeprefix(arm.label)
            rows.append(Row((f"{arm.settings.strip()}{dagger}", f"{len(arm.runs)}", number(value, 4))))
    metric = _selection_metric(study.arms[0].runs[0]).replace("_", " ")
    caption = "Settings of each arm by the lowest value on validation that its runs reached, the best first"
    return Table(caption, ("settings", "runs", f"validation {metric}"), tuple(rows))


def _selection_metric(run: Run) -> str:
    return str(run.summary.get("selection_metric", "loss"))


def _validated(arm: Arm) -> float:
    """The best value of the checkpoint selection metric, the mean over runs; nan where it is not known."""
    values = [run.summary.get(f"best_validation_{_selection_metric(run)}", math.nan) for run in arm.runs]
    return statistics.fmean(values)


def learning(study: Study) -> Table:
    """The error rate on validation by length over training; no rows where nothing was decoded in validation."""
    rows, labels, side = [], list[str](), ""
    curves = learning_curves(study.arms)
    for arm in study.arms:
        points = curves[arm.label]
        labels = labels or [*points[0].rates] if points else labels
        if not points:
            continue
        side = points[0].side
        rows.append(Row((study.shown(arm.label),), "heading"))
        rows += [_learning_row(_updates(point), point, labels) for point in points]
        if change := last_doubling(points):
            cells = [_signed(change.get(label, math.nan)) for label in labels]
            rows.append(Row(("change since half of the updates", "", *cells), "total"))
    caption = f"Error rate of free-running decoding on a part of validation, by {side} length, mean over runs"
    return Table(caption, ("updates", "training time", *labels), tuple(rows))


def equal_training(study: Study) -> Table:
    """The arms after as many updates, after as much time, and at the end of training; no rows as above."""
    points = learning_curves(study.arms)
    if not all(points.values()):
        return Table("", (), ())
    labels = [*next(iter(points.values()))[0].rates]
    common = set.intersection(*({point.updates for point in some if not point.is_end} for some in points.values()))
    times = [point.seconds for some in points.values() for point in some if point.is_end]
    rows = []
    if common:
        at = max(common)
        rows.append(Row((f"after {at:,.0f} updates of each",), "heading"))
        chosen = {label: next(point for point in some if point.updates == at) for label, some in points.items()}
        rows += [_learning_row(study.shown(label), point, labels) for label, point in chosen.items()]
    if all(time is not None for time in times) and len(points) > 1:
        shortest = min(time for time in times if time is not None)
        rows.append(Row((f"after at most {duration(shortest)} of training, the time of the fastest arm",), "heading"))
        for label, some in points.items():
            within = [point for point in some if point.seconds is not None and point.seconds <= shortest]
            cells = _learning_row(study.shown(label), within[-1], labels) if within else Row((study.shown(label),))
            rows.append(cells)
    rows.append(Row(("at the end of the training of each",), "heading"))
    rows += [_learning_row(study.shown(label), some[-1], labels) for label, some in points.items()]
    caption = (
        "The same error rate at equal updates, at equal time and at the end; before its end the learning rate of a run "
        "has not decayed yet"
    )
    return Table(caption, ("arm", "training time", *labels), tuple(rows))


def _learning_row(name: str, point: LearningPoint, labels: Sequence[str]) -> Row:
    return Row((name, duration(point.seconds), *(number(point.rates.get(label, math.nan)) for label in labels)))


def _updates(point: LearningPoint) -> str:
    return f"{point.updates:,.0f}{', the end' if point.is_end else ''}"


def _signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else number(value)


def time_to_common_loss(study: Study) -> Table:
    """How long each arm trains until it reaches one validation loss; no rows where no run has recorded its losses."""
    runs = study.collection.runs
    loss = common_loss(runs) if study.loss is None else study.loss
    if loss is None or not any(map(validations, runs)):
        return Table("", (), ())
    rows, means = [], dict[str, float | None]()
    for arm in study.arms:
        times = [time_to_loss(run, loss) for run in arm.runs]
        reached = [time for time in times if time is not None]
        updates = sorted({time.updates for time in reached})
        seconds = [time.seconds for time in reached if time.seconds is not None]
        means[arm.label] = mean = statistics.fmean(seconds) if len(seconds) == len(times) else None
        baseline = means[study.arms[0].label]
        cells = (
            study.shown(arm.label),
            f"{len(reached)} of {len(times)}",
            "–".join(f"{n:,}" for n in dict.fromkeys((updates[0], updates[-1]))) if reached else "not reached",
            duration(statistics.fmean(seconds)) if seconds else NONE if reached else "not reached",
            number(mean / baseline, 2) if mean and baseline else NONE,
        )
        rows.append(Row(cells))
    caption = (
        f"Training until the first validation with a loss of {number(loss)} nats per token or less; "
        "the time is the mean over the runs that reach it"
    )
    columns = ("arm", "runs that reach it", "updates", "training time", f"relative to {study.arms[0].label}")
    return Table(caption, columns, tuple(rows))
