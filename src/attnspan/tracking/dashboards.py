"""The W&B workspaces and the W&B report of a study, as code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from attnspan.analysis.collection import differing_keys
from attnspan.analysis.metrics import ATTENTION, DEGENERATE, QUALITY, metrics_in
from attnspan.errors import InputError, reason_of
from attnspan.files import read_json, write_text
from attnspan.runs.finished_run import Run
from attnspan.runs.layout import CONFIG, SUMMARY, find_runs, read_config
from attnspan.tracking.session import BY_LENGTH, UPDATE, VARIANT
from attnspan.tracking.study import JOB_TYPE

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws


REPORT = "report.json"

_MOST_RUNS = 100
"""The most runs that a plot shows."""

_CURVES = {
    "train/loss": "training loss (nats per token)",
    "validation/loss": "validation loss (teacher-forced, nats per token)",
    "validation/teacher_forced_accuracy": "validation accuracy (teacher-forced)",
    "train/learning_rate": "learning rate",
    "train/gradient_norm": "gradient norm, before clipping",
}

_COST = {
    "train_seconds": "training time (s)",
    "tokens_per_second": "target tokens per second, training",
    "decode_tokens_per_second": "tokens per second, decoding",
    "peak_memory_mb": "peak memory (MB)",
    "parameters": "parameters",
}


@dataclass(frozen=True)
class StudyRuns:
    """The runs of a study, by the names that W&B has for them."""

    study: str
    data: tuple[str, ...]
    by: str
    """The config key that is the same for all seeds of an arm, and differs between arms."""


def find_study(paths: Sequence[Path]) -> StudyRuns:
    """Find the study of the runs in or below ``paths``.

    Raises:
        InputError: there is no run, or the runs are of several studies, or of none.
    """
    studies = dict[str | None, Path]()
    arms: dict[tuple[str, str], list[Run]] = {}
    for directory in find_runs(paths):
        if not (directory / CONFIG).is_file():
            continue  # it has not logged anything yet
        config = read_config(directory)
        summary = read_json(directory / SUMMARY) if (directory / SUMMARY).is_file() else {}
        studies.setdefault(config.get("study"), directory)
        run = Run(directory, summary, config, pd.DataFrame())
        arms.setdefault((str(config["data_name"]), str(config["arm"])), []).append(run)
    if not studies:
        raise InputError(f"{paths[0]}: no run has started yet")
    if len(studies) > 1:
        named = ", ".join(f"{directory} of {name or 'none'}" for name, directory in studies.items())
        raise InputError(f"these runs are of several studies ({named}); give the runs of one")
    (name,) = studies
    if not name:
        raise InputError(f"{studies[None]}: belongs to no study; give runs of a sweep, or runs with study=NAME")
    if {"'", '"'} & set(name):
        raise InputError(f"study {name}: W&B cannot search for a name that contains quotes")
    by = VARIANT if any(differing_keys(runs) for runs in arms.values()) else "arm"
    return StudyRuns(name, tuple(sorted({data for data, _ in arms})), by)


def write_json(directory: Path, runs: StudyRuns, *, project: str, entity: str) -> None:
    """Write the W&B report to ``report.json``, and the workspace of each data set to ``workspace-<data>.json``.

    Raises:
        InputError: they cannot be written.
    """
    found: dict[str, Any] = {
        f"workspace-{data}.json": workspace(runs, data, project=project, entity=entity) for data in runs.data
    }
    for name, one in {**found, REPORT: report(runs, project=project, entity=entity)}.items():
        text = one._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=2)
        write_text(directory / name, text + "\n")
        print(directory / name)


def save(runs: StudyRuns, *, project: str, entity: str | None) -> None:
    """Save the workspaces and the report on W&B, and print their addresses.

    Raises:
        InputError: there is no key, no network, or no such project.
    """
    os.environ["WANDB_SILENT"] = "true"  # otherwise it prompts for a key
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    try:
        api = wandb.Api(timeout=10)
        entity = entity or api.default_entity
        if not entity:
            raise InputError("--entity: your W&B account has no default entity; give one")
        api.project(project, entity=entity).id  # noqa: B018 - raises if it does not exist
    except InputError:
        raise
    except Exception as error:  # from W&B, requests or a proxy
        raise InputError(
            f"--project {project}: cannot be found on W&B ({reason_of(error)}); --dry-run works without W&B"
        ) from error
    try:
        views: list[Any] = [workspace(runs, data, project=project, entity=entity) for data in runs.data]
        for one in (*views, report(runs, project=project, entity=entity)):
            print(one.save().url)
    except Exception as error:
        raise InputError(f"--project {entity}/{project}: cannot be saved ({reason_of(error)})") from error


def workspace(runs: StudyRuns, data: str, *, project: str, entity: str) -> ws.Workspace:
    """Quality by length, curves, cost and failures on one data set, with a line per arm and a band for its seeds."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr

    maps = [f"test/attention_{number}" for number in (1, 2, 3)]
    pictures = wr.MediaBrowser(title="attention maps", media_keys=maps, num_columns=3)
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"{runs.study}, {data}",
        sections=[
            ws.Section(name="Quality against source length", panels=_quality(runs.by), is_open=True),
            ws.Section(name="Curves", panels=_curves(runs.by), is_open=True),
            ws.Section(name="Validation by source length", panels=_validation_by_length(runs.by)),
            ws.Section(name="Cost", panels=_cost(runs.by), is_open=True),
            ws.Section(name="Failures", panels=[*_by_length(runs.by, DEGENERATE), _comparer()], is_open=True),
            ws.Section(name="Examples", panels=[pictures]),
        ],
        settings=ws.WorkspaceSettings(x_axis=UPDATE, max_runs=_MOST_RUNS),
        runset_settings=ws.RunsetSettings(
            filters=_of_data(runs, data),
            groupby=[expr.Config(runs.by)],
            pinned_columns=["run:state", "summary:failure", "summary:test/error_rate", "summary:span/tokens"],
        ),
    )


def report(runs: StudyRuns, *, project: str, entity: str) -> wr.Report:
    """The W&B report: the same plots, with the comparison that the run of the study has logged."""
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces import expr

    def grid(panels: list[Any], filters: list[Any], *groupby: str) -> wr.PanelGrid:
        # With both project and entity a run set queries the server; with neither it has those of the report.
        return wr.PanelGrid(runsets=[wr.Runset(name=runs.study, filters=filters, groupby=list(groupby))], panels=panels)

    blocks: list[Any] = [wr.TableOfContents()]
    for data in runs.data:
        of_study = [expr.Metric("Group") == runs.study, expr.Metric("JobType") == JOB_TYPE]
        compared = [f"{data}/{plot}" for plot in ("degradation", "advantage", "attention")]
        of_data, by = _of_data(runs, data), f"config.{runs.by}"
        blocks += [
            wr.H1(data),
            wr.P("Error rates with 95% intervals over seeds and test examples, from attnspan-report."),
            grid([wr.MediaBrowser(media_keys=compared, num_columns=2, layout=_wide())], of_study),
            wr.H2("Quality against source length"),
            wr.P("On the test set, free-running unless called teacher-forced. Bands: standard deviation over seeds."),
            grid(_quality(runs.by), of_data, by),
            wr.H2("Curves"),
            grid(_curves(runs.by), of_data, by),
            wr.H2("Cost"),
            grid(_cost(runs.by), of_data, by),
            wr.H2("Failures"),
            grid(_by_length(runs.by, DEGENERATE), of_data, by),
            wr.P("Runs that did not finish; the row 'failure' has the reason."),
            grid([_comparer()], [*of_data, expr.Metric("State") != "finished"]),
        ]  # fmt: skip
    return wr.Report(
        project=project,
        entity=entity,
        title=f"{runs.study}: how far back each arm looks",
        description=f"Of {', '.join(runs.data)}; made by attnspan-dashboard.",
        blocks=blocks,
        width="fluid",
    )


def _of_data(runs: StudyRuns, data: str) -> list[Any]:
    """Filters for the runs of the study on one data set; the run of the study itself has no ``data_name``."""
    from wandb_workspaces import expr

    return [expr.Metric("Group") == runs.study, expr.Config("data_name") == data]


def _wide() -> Any:
    import wandb_workspaces.reports.v2 as wr

    return wr.Layout(w=24, h=12)


def _grouped(by: str) -> dict[str, Any]:
    """Grouping of runs in a plot: the mean over seeds, and a band of one standard deviation."""
    import wandb_workspaces.reports.v2 as wr

    return {"groupby": wr.Config(by), "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}


def _line(by: str, key: str, title: str, axis: str, axis_title: str) -> Any:
    import wandb_workspaces.reports.v2 as wr

    return wr.LinePlot(title=title, x=axis, y=[key], title_x=axis_title, max_runs_to_show=_MOST_RUNS, **_grouped(by))


def _by_length(by: str, *places: str) -> list[Any]:
    return [
        _line(by, f"{BY_LENGTH}/{metric.name}", metric.title, f"{BY_LENGTH}/source_length", "source tokens")
        for metric in metrics_in(*places)
    ]


def _quality(by: str) -> list[Any]:
    return _by_length(by, QUALITY, ATTENTION)


def _curves(by: str) -> list[Any]:
    return [_line(by, key, title, UPDATE, "updates") for key, title in _CURVES.items()]


def _validation_by_length(by: str) -> list[Any]:
    """All bins in one panel, by a pattern: their names are lengths, which depend on the data."""
    import wandb_workspaces.reports.v2 as wr

    return [
        wr.LinePlot(
            title=f"validation {name} of each bin (teacher-forced)",
            x=UPDATE,
            title_x="updates",
            metric_regex=f"validation_{name}/.*",
            max_runs_to_show=_MOST_RUNS,
            **_grouped(by),
        )
        for name in ("loss", "accuracy")
    ]


def _cost(by: str) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    bars = [wr.BarPlot(title=title, metrics=[wr.SummaryMetric(key)], **_grouped(by)) for key, title in _COST.items()]
    return [*bars, _line(by, "machine/peak_memory_mb", "peak memory so far (MB)", UPDATE, "updates")]


def _comparer() -> Any:
    """Runs next to each other; ``failure`` has the reason of those that failed."""
    import wandb_workspaces.reports.v2 as wr

    return wr.RunComparer(diff_only="split", layout=_wide())
