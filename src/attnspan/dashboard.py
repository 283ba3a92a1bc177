"""``attnspan-dashboard``: a W&B workspace and a W&B report that compare arms, as code.

Both show what runs log themselves (:mod:`attnspan.gauges`, :mod:`attnspan.by_length`, :mod:`attnspan.wandb_results`):
curves grouped by arm, as mean and standard deviation over seeds; quality against source length; cost; failures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from attnspan.errors import InputError

UPDATE, LENGTH = "trainer/global_step", "by_length/source_length"

SECTIONS: dict[str, list[tuple[str, str, str]]] = {
    "Quality against source length": [
        ("error rate of free-running output", LENGTH, "by_length/error_rate"),
        ("teacher-forced accuracy", LENGTH, "by_length/token_accuracy"),
        ("test examples", LENGTH, "by_length/examples"),
    ],
    "Curves": [
        ("training loss (nats a token)", UPDATE, "train/loss"),
        ("validation loss (nats a token)", UPDATE, "validation/loss"),
        ("teacher-forced accuracy on validation", UPDATE, "validation/teacher_forced_accuracy"),
        ("learning rate", UPDATE, "train/learning_rate"),
        ("gradient norm before clipping", UPDATE, "train/gradient_norm"),
    ],
    "Cost": [
        ("training speed (target tokens/s)", UPDATE, "machine/train_tokens_per_second"),
        ("peak memory (MB)", UPDATE, "machine/peak_memory_mb"),
    ],
}
"""Section -> its line plots: title, what runs along x, what along y."""

BARS: dict[str, list[tuple[str, str]]] = {
    "Cost": [
        ("parameters", "cost/parameters"),
        ("decoding speed (tokens/s)", "cost/decode_tokens_per_second"),
        ("wall time (s)", "cost/wall_seconds"),
    ],
    "Failures": [
        ("empty output (share)", "failures/empty"),
        ("cut at the length limit (share)", "failures/truncated"),
        ("repeating output (share)", "failures/repeating"),
    ],
}
"""Section -> its bars, one an arm."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code: 2 for what cannot be done, said in one line."""
    options = _parser().parse_args(arguments)
    try:
        workspace, report = make(options.project, options.entity, options.study)
        if options.dry_run:
            print(json.dumps({"workspace": as_json(workspace), "report": as_json(report)}, indent=2))
        else:
            _save(workspace, report)
    except InputError as error:
        print(f"attnspan-dashboard: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attnspan-dashboard",
        description="Make a W&B workspace and a W&B report in which arms are compared: curves as mean and standard "
        "deviation over seeds, quality against source length, cost, failures.",
    )
    parser.add_argument("--entity", required=True, help="W&B user or team")
    parser.add_argument("--project", default="attnspan", help="W&B project (default: attnspan)")
    parser.add_argument("--study", help="show the runs of this study only (W&B's group)")
    parser.add_argument("--dry-run", action="store_true", help="print both as JSON; nothing is sent, no key is needed")
    return parser


def make(project: str, entity: str, study: str | None) -> tuple[Any, Any]:
    """The workspace and the report, of which W&B knows nothing yet.

    Args:
        project: of W&B.
        entity: user or team.
        study: whose runs are shown; None for all.
    """
    import wandb_workspaces.expr as expr
    import wandb_workspaces.reports.v2 as reports
    import wandb_workspaces.workspaces as workspaces

    title = f"attention span: {study}" if study else "attention span"
    names = list(dict.fromkeys([*SECTIONS, *BARS]))
    shown = [expr.Metric("JobType") != "study", *([expr.Metric("Group") == study] if study else [])]
    workspace = workspaces.Workspace(
        entity=entity,
        project=project,
        name=title,
        sections=[workspaces.Section(name=name, panels=_panels(name), is_open=True) for name in names],
        settings=workspaces.WorkspaceSettings(x_axis=UPDATE, group_by_prefix="first"),
        runset_settings=workspaces.RunsetSettings(filters=shown, groupby=[expr.Config("arm")]),
    )
    runset = (
        reports.Runset(  # entity and project are the report's; named here too, W&B would be asked for their numbers
            name=study or "all runs", filters=shown, groupby=["config.arm"]
        )
    )
    blocks: list[Any] = [
        reports.P(
            "Means and standard deviations over seeds. Intervals that hold with few seeds, paired differences and "
            "spans are in the study's own report, the artifact of its run of job type study."
        )
    ]
    for name in names:
        blocks += [reports.H2(name), reports.PanelGrid(runsets=[runset], panels=_panels(name))]
    blocks += [reports.H2("Attention and examples"), reports.PanelGrid(runsets=[runset], panels=[_media()])]
    return workspace, reports.Report(entity=entity, project=project, title=title, blocks=blocks, width="fluid")


def _panels(section: str) -> list[Any]:
    import wandb_workspaces.reports.v2 as reports

    lines = [
        reports.LinePlot(
            title=title, x=x, y=[y], title_x="update" if x == UPDATE else "source length (tokens)",
            groupby=reports.Config("arm"), groupby_aggfunc="mean", groupby_rangefunc="stddev",
        )
        for title, x, y in SECTIONS.get(section, [])
    ]  # fmt: skip
    bars = [
        reports.BarPlot(
            title=title, metrics=[reports.SummaryMetric(metric)],
            groupby=reports.Config("arm"), groupby_aggfunc="mean", groupby_rangefunc="stddev",
        )
        for title, metric in BARS.get(section, [])
    ]  # fmt: skip
    return [*lines, *bars]


def _media() -> Any:
    import wandb_workspaces.reports.v2 as reports

    return reports.WeavePanelSummaryTable(table_name="examples")


def as_json(view: Any) -> Any:
    """What W&B would be sent."""
    return json.loads(view._to_model().model_dump_json(by_alias=True, exclude_none=True))


def _save(workspace: Any, report: Any) -> None:
    """Send both, and print where they are.

    Raises:
        InputError: there is no key, or W&B does not take them.
    """
    import wandb

    if not wandb.login(prompt=False, verify=False):
        raise InputError("W&B asks for a key; `wandb login` takes one, and --dry-run needs none")
    for view in (workspace, report):
        try:
            view.save()
        except Exception as error:  # the client's own, the server's and the network's have no base class in common
            words = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"W&B did not take the {type(view).__name__.lower()}: {words[:300]}") from error
        print(f"{type(view).__name__.lower()}: {view.url}")


if __name__ == "__main__":
    sys.exit(main())
