"""A study is one W&B run too, of job type ``study`` in the group of its runs, with its plots, tables and report.

It mirrors the report on the disk. Its keys start with the name of the data set.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from attnspan.analysis.metrics import ERROR_RATE
from attnspan.analysis.study import Study
from attnspan.config.schema import DISABLED, MODES
from attnspan.errors import InputError, nearest
from attnspan.reporting import csv_files, tables
from attnspan.reporting.findings import findings
from attnspan.tracking.session import session

AS_RUNS = "as-runs"
"""Use the mode of the first run."""
JOB_TYPE = "study"


def check_mode(mode: str) -> None:
    """Check a mode.

    Raises:
        InputError: it does not exist.
    """
    known = (AS_RUNS, *MODES)
    if mode not in known:
        raise InputError(f"--wandb {mode}: there is no such mode; {nearest(mode, known)}")


def study_name(studies: Sequence[Study], out: Path) -> str:
    """The study of the runs; if they do not agree on one, the name of the report's directory."""
    names = {run.config.get("study") for study in studies for run in study.collection.runs}
    (name,) = names if len(names) == 1 else (None,)
    return str(name or out.resolve().name)


def mirror_study(
    studies: Sequence[Study], out: Path, *, mode: str, command: str, log: Callable[[str], None] = print
) -> None:
    """Log a written report. Logging the same study again continues the same W&B run.

    Args:
        studies: one per data set.
        out: the report's directory; W&B's files go to its subdirectory ``wandb/``.
        mode: one that :func:`check_mode` accepts.
        command: the command that made the report.
        log: takes lines for people.

    Raises:
        InputError: W&B cannot start.
    """
    out = out.resolve()  # wandb sync may be called from anywhere
    logger: dict[str, Any] = studies[0].collection.runs[0].config.get("logger") or {}
    settings: dict[str, Any] = logger.get("wandb") or {}
    if mode == AS_RUNS:
        mode = settings.get("mode", DISABLED)
    if mode == DISABLED:
        return
    name, data = study_name(studies, out), [study.data for study in studies]
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and "wandb" not in path.relative_to(out).parts]
    with session(
        out,
        mode=mode,
        run_id=f"study-{hashlib.sha256(repr((name, data)).encode()).hexdigest()[:12]}",
        log=log,
        project=settings.get("project") or os.environ.get("WANDB_PROJECT", "attnspan"),
        entity=settings.get("entity"),
        group=name,
        job_type=JOB_TYPE,
        name=f"{name} study",
        tags=[JOB_TYPE],
        notes=command,
        config={
            "study": name,
            "data": data,
            "arms": list(studies[0].legend),
            "runs": [run.run_id for study in studies for run in study.collection.runs],
            "keep": studies[0].keep,
        },
    ) as run:
        import wandb

        run.log({key: value for study in studies for key, value in _media(study, out, len(studies)).items()})
        if (ranking := out / "ranking.png").exists():
            run.log({"ranking": wandb.Image(str(ranking))})
        for study in studies:
            run.summary[f"{study.data}/finding"] = findings(study)[0]
            for one in study.spans:
                run.summary[f"{study.data}/span/{one.arm}"] = one.span.length.tokens
        artifact = wandb.Artifact(f"report-{run.id}", type="report", description=f"Report on the study {name}")
        for path in files:
            artifact.add_file(str(path), name=path.relative_to(out).as_posix(), policy="immutable")
        run.log_artifact(artifact)


def _media(study: Study, out: Path, studies: int) -> dict[str, Any]:
    """The plots of the report, all arms in one native W&B plot, and the tables."""
    import wandb

    directory = out / study.data if studies > 1 else out
    found: dict[str, Any] = {
        name: wandb.Image(str(directory / f"{name}.png"))
        for name in ("degradation", "advantage", "attention")
        if (directory / f"{name}.png").exists()
    }
    points = [[point for point in study.curve if point.arm == arm and not point.region.total] for arm in study.legend]
    points = [of_arm for of_arm in points if of_arm]
    found["error_rate_by_length"] = wandb.plot.line_series(
        xs=[[point.region.mean_length for point in of_arm] for of_arm in points],
        ys=[[point.metrics[ERROR_RATE.name].value for point in of_arm] for of_arm in points],
        keys=[of_arm[0].arm for of_arm in points],
        title=f"Error rate by source length, {study.data}",
        xname="source tokens",
    )
    found["curve"] = wandb.Table(dataframe=csv_files.points_frame(study.curve))
    for name, table in (
        ("differences", tables.differences(study)),
        ("spans", tables.spans(study)),
        ("cost", tables.cost(study)),
    ):
        rows = [list(row.cells) for row in table.rows if row.kind != "heading"]
        if rows:
            found[name] = wandb.Table(dataframe=pd.DataFrame(rows, columns=list(table.columns)))
    return {f"{study.data}/{name}": value for name, value in found.items()}
