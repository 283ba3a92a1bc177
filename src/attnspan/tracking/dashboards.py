"""The W&B workspaces and the W&B report of a study, as code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from attnspan.analysis.metrics import ATTENTION, DEGENERATE, QUALITY, STOPPING, metrics_in
from attnspan.errors import InputError, reason_of
from attnspan.files import write_text
from attnspan.tracking import chart_preset
from attnspan.tracking.run_logger import OVER_TRAINING
from attnspan.tracking.session import TEST_BY, UPDATE
from attnspan.tracking.study import JOB_TYPE, StudyRuns

REPORT, PRESET, COMPARISON = "report.json", "curve-preset.json", "comparison.json"

_MOST_RUNS = 100
"""The most runs that a plot shows."""
_WIDE = wr.Layout(w=24, h=12)
_QUALITY, _FAILURES, _SEARCH = "Quality against length", "Failures", "What the settings change"
_VALIDATION, _EXAMPLES, _OVER_TRAINING = "Validation by length", "Examples", "Attention over training"
_PLOTS = ("degradation", "advantage", "attention")
_TABLES_OF_RUNS = ("test/by_length", "test/examples")
_TABLES_OF_STUDY = ("curve", "differences", "spans", "cost", "failures")
"""As :mod:`attnspan.tracking.study` logs them, with the data set before their names."""
_CLOSED = (_VALIDATION, _EXAMPLES, _OVER_TRAINING)
"""Sections of a workspace that are closed at first."""

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


def write_json(directory: Path, runs: StudyRuns, *, project: str, entity: str) -> None:
    """Write the W&B report, the workspaces, each data set's being ``workspace-<data>.json``, and the curve's preset.

    Raises:
        InputError: they cannot be written.
    """
    preset = json.dumps(chart_preset.specification(runs.colours), indent=2)
    write_text(directory / PRESET, preset + "\n")
    print(directory / PRESET)
    names = [*(f"workspace-{data}.json" for data in runs.data), COMPARISON, REPORT]
    for name, view in zip(names, _views(runs, project, entity), strict=True):
        text = view._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=2)
        write_text(directory / name, text + "\n")
        print(directory / name)


def save(runs: StudyRuns, *, project: str, entity: str | None) -> None:
    """Save the workspaces and the report on W&B, and print their addresses.

    Raises:
        InputError: there is no key, no network, or no such project.
    """
    os.environ["WANDB_SILENT"] = "true"  # otherwise it prompts for a key
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
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
        chart_preset.save(api, entity=entity, colours=runs.colours)
        for view in _views(runs, project, entity):
            print(view.save().url)
    except Exception as error:
        raise InputError(f"--project {entity}/{project}: cannot be saved ({reason_of(error)})") from error


def _views(runs: StudyRuns, project: str, entity: str) -> list[Any]:
    """The workspace of each data set, that of the study's own run, the report; W&B draws the first runs, so it says."""
    if runs.runs > _MOST_RUNS:
        print(f"note: the plots show {_MOST_RUNS} of the {runs.runs} runs; the study's own run has all of them")
    workspaces = [workspace(runs, data, project=project, entity=entity) for data in runs.data]
    of_study = [make(runs, project=project, entity=entity) for make in (comparison, report)]
    return [*workspaces, *of_study]


def workspace(runs: StudyRuns, data: str, *, project: str, entity: str) -> ws.Workspace:
    """Quality by length, curves, cost and failures on one data set, with a line per arm and a band for its seeds."""
    maps = [f"test/attention_{number}" for number in (1, 2, 3)]
    span = f"summary:span/{runs.lengths[data].key}"
    pictures = wr.MediaBrowser(title="attention maps", media_keys=maps, num_columns=3)
    examples = [_table(name) for name in _TABLES_OF_RUNS]
    panels = {**_panels(runs, data), _EXAMPLES: [pictures, *examples], **_search(runs)}
    panels[_FAILURES].append(_comparer())
    group_colours: dict[Any, Any] = {**runs.colours} if runs.by == "arm" else {}
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"{runs.study}, {data}",
        sections=[ws.Section(name=name, panels=some, is_open=name not in _CLOSED) for name, some in panels.items()],
        settings=ws.WorkspaceSettings(x_axis=UPDATE, max_runs=_MOST_RUNS),
        runset_settings=ws.RunsetSettings(
            filters=_of_data(runs, data),
            groupby=[expr.Config(runs.by)],
            pinned_columns=["run:state", "summary:failure", "summary:test/error_rate", span],
            group_colors=group_colours,
        ),
    )


def comparison(runs: StudyRuns, *, project: str, entity: str) -> ws.Workspace:
    """What the study's own run has logged: for each data set the curve, the plots, the tables and the explorer."""
    sections = [
        ws.Section(name=data, panels=[_curve(runs, data, entity), *_compared(data)], is_open=True) for data in runs.data
    ]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"{runs.study}, arms compared",
        sections=sections,
        runset_settings=ws.RunsetSettings(
            filters=_of_study(runs), pinned_columns=["run:state", *(f"summary:{data}/finding" for data in runs.data)]
        ),
    )


def _compared(data: str) -> list[Any]:
    """Panels of what the study's run has for a data set, but for the curve."""
    return [
        wr.MediaBrowser(title="plots", media_keys=[f"{data}/{plot}" for plot in _PLOTS], num_columns=2, layout=_WIDE),
        *(_table(f"{data}/{name}") for name in _TABLES_OF_STUDY),
        wr.MediaBrowser(title="explorer", media_keys=[f"{data}/explorer"], num_columns=1, layout=_WIDE),
    ]


def report(runs: StudyRuns, *, project: str, entity: str) -> wr.Report:
    """The W&B report: the same plots, with the comparison that the run of the study has logged."""

    def grid(panels: list[Any], filters: list[Any], *groupby: str) -> wr.PanelGrid:
        # With both project and entity a run set queries the server; with neither it has those of the report.
        by_arm: dict[Any, Any] = {
            wr.RunsetGroup(runset_name=runs.study, keys=(wr.RunsetGroupKey(key=wr.Config(runs.by), value=arm),)): colour
            for arm, colour in runs.colours.items()
            if groupby and runs.by == "arm"
        }
        runset = wr.Runset(name=runs.study, filters=filters, groupby=list(groupby))
        return wr.PanelGrid(runsets=[runset], panels=panels, custom_run_colors=by_arm)

    blocks: list[Any] = [wr.TableOfContents()]
    of_study = _of_study(runs)
    for data in runs.data:
        plots, *tables, explorer = _compared(data)
        blocks += [
            wr.H1(data),
            *(wr.P(sentence) for sentence in runs.findings.get(data, ())),
            grid([_curve(runs, data, entity)], of_study),
            wr.P("Error rates with 95% intervals over seeds and test examples, from attnspan-report."),
            grid([plots], of_study),
            wr.H2("Tables"),
            grid(tables, of_study),
            wr.H2("Explorer"),
            wr.P("Where attnspan-report --explore has written one: curve, examples and attention of all arms."),
            grid([explorer], of_study),
        ]
        of_data, panels = _of_data(runs, data), _panels(runs, data)
        for heading in (_QUALITY, "Curves", _OVER_TRAINING, "Cost", _FAILURES):
            blocks.append(wr.H2(heading))
            if heading == _QUALITY:
                what = "On the test set, free-running unless called teacher-forced."
                blocks.append(wr.P(f"{what} Bands: standard deviation over seeds."))
            by = () if heading == _OVER_TRAINING else (f"config.{runs.by}",)  # pictures have no mean
            blocks.append(grid(panels[heading], of_data, *by))
        if search := _search(runs):
            blocks += [wr.H2(_SEARCH), grid(search[_SEARCH], of_data)]
        blocks.append(wr.P("Runs that did not finish; the row 'failure' has the reason."))
        blocks.append(grid([_comparer()], [*of_data, expr.Metric("State") != "finished"]))
    title, description = f"{runs.study}: how far back each arm looks", f"Of {', '.join(runs.data)}"
    return wr.Report(
        project=project, entity=entity, title=title, description=f"{description}; made by attnspan-dashboard.",
        blocks=blocks, width="fluid",
    )  # fmt: skip


def _of_study(runs: StudyRuns) -> list[Any]:
    """Filters for the run of the study itself."""
    return [expr.Metric("Group") == runs.study, expr.Metric("JobType") == JOB_TYPE]


def _of_data(runs: StudyRuns, data: str) -> list[Any]:
    """Filters for the runs of the study on one data set; the run of the study itself has no ``data_name``."""
    return [expr.Metric("Group") == runs.study, expr.Config("data_name") == data]


def _panels(runs: StudyRuns, data: str) -> dict[str, list[Any]]:
    """The plots under each heading, with the mean over the seeds of a value of ``by``, and its standard deviation."""
    axis = runs.lengths[data]
    section = f"{TEST_BY}{axis.key}"
    grouped: Any = {"groupby": wr.Config(runs.by), "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}

    def line(title: str, axis: str = UPDATE, axis_title: str = "updates", **what: Any) -> wr.LinePlot:
        return wr.LinePlot(title=title, x=axis, title_x=axis_title, max_runs_to_show=_MOST_RUNS, **what, **grouped)

    def by_length(*places: str) -> list[Any]:
        return [
            line(metric.title, f"{section}/length", axis.unit, y=[f"{section}/{metric.name}"])
            for metric in metrics_in(*places)
            if metric.asked_by is None or metric.asked_by in runs.switches
        ]

    return {
        _QUALITY: by_length(QUALITY, ATTENTION),
        "Curves": [line(title, y=[key]) for key, title in _CURVES.items()],
        _VALIDATION: [  # all bins by a pattern: their names are lengths, which depend on the data
            line(f"validation {name} of each bin (teacher-forced)", metric_regex=f"validation_{name}/.*")
            for name in ("loss", "accuracy")
        ],
        _OVER_TRAINING: [
            wr.MediaBrowser(
                title="attention of validation examples, teacher-forced; the slider is the update",
                media_keys=[f"{OVER_TRAINING}/{number}" for number in (1, 2)],
                num_columns=2,
                layout=_WIDE,
            )
        ],
        "Cost": [
            *(wr.BarPlot(title=title, metrics=[wr.SummaryMetric(key)], **grouped) for key, title in _COST.items()),
            line("peak memory so far (MB)", y=["machine/peak_memory_mb"]),
            wr.ScatterPlot(
                title="error rate against training time (s)",
                x=wr.SummaryMetric("train_seconds"),
                y=wr.SummaryMetric("test/error_rate"),
            ),
        ],
        _FAILURES: by_length(DEGENERATE, STOPPING),
    }


def _search(runs: StudyRuns) -> dict[str, list[Any]]:
    """Where runs of an arm differ in settings: which of them lower the validation loss."""
    if not runs.varied:
        return {}
    loss = "best_validation_loss"
    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(key)) for key in runs.varied]
    columns.append(wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(loss)))
    return {
        _SEARCH: [
            wr.ParallelCoordinatesPlot(title="settings and validation loss", columns=columns, layout=_WIDE),
            wr.ParameterImportancePlot(with_respect_to=loss),
        ]
    }


def _curve(runs: StudyRuns, data: str, entity: str) -> Any:
    """The error curve of the study with its intervals, arms as lines, one value on hovering."""
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": f"{data}/curve"}},
        chart_name=f"{entity}/{chart_preset.NAME}",
        chart_fields=dict(chart_preset.FIELDS),
        chart_strings={"unit": runs.lengths[data].unit},
        layout=_WIDE,
    )


def _table(name: str) -> Any:
    return wr.WeavePanelSummaryTable(table_name=name, layout=_WIDE)


def _comparer() -> Any:
    """Runs next to each other; ``failure`` has the reason of those that failed."""
    return wr.RunComparer(diff_only="split", layout=_WIDE)
