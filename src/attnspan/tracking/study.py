"""A study is one W&B run too, of job type ``study`` in the group of its runs, with its plots, tables and report.

It mirrors the report on the disk. Its keys start with the name of the data set.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from attnspan.analysis.collection import collect_each, differing_keys
from attnspan.analysis.lengths.axis import LengthAxis
from attnspan.analysis.study import Study, build_study, with_one_legend
from attnspan.config.schema import DISABLED, MODES
from attnspan.data.corpora.base import LENGTHS
from attnspan.errors import InputError, nearest
from attnspan.files import read_json
from attnspan.reporting import csv_files, tables
from attnspan.reporting.explorer.document import EXPLORER
from attnspan.reporting.findings import findings
from attnspan.runs.finished_run import Run
from attnspan.runs.layout import CONFIG, SUMMARY, find_runs, read_config
from attnspan.tracking.session import VARIANT, session

AS_RUNS = "as-runs"
"""Use the mode of the first run."""
JOB_TYPE = "study"


@dataclass(frozen=True)
class StudyRuns:
    """The runs of a study, by the names that W&B has for them."""

    study: str
    data: tuple[str, ...]
    by: str
    """The config key that is the same for all seeds of an arm, and differs between arms."""
    lengths: dict[str, LengthAxis]
    """The length by which the results on each data set are given, as far as a run says so; else the source's."""
    switches: frozenset[str]
    """The switches that are on in the config of a run."""
    runs: int
    """How many there are on W&B, finished or not."""
    varied: tuple[str, ...]
    """The keys in which runs of one arm differ, but for the seed: what a search looks for."""
    findings: dict[str, list[str]]
    """By data set, what the report of the finished runs says first, and what is to be read with care."""
    colours: dict[str, str]
    """Arm to its colour in the report."""


def find_study(paths: Sequence[Path]) -> StudyRuns:
    """Find the study of the runs in or below ``paths``.

    Raises:
        InputError: there is no run, or the runs are of several studies, or of none.
    """
    studies = dict[str | None, Path]()
    lengths = dict[str, LengthAxis]()
    switches = set[str]()
    arms: dict[tuple[str, str], list[Run]] = {}
    for directory in find_runs(paths):
        if not (directory / CONFIG).is_file():
            continue  # it has not logged anything yet
        config = read_config(directory)
        summary = read_json(directory / SUMMARY) if (directory / SUMMARY).is_file() else {}
        studies.setdefault(config.get("study"), directory)
        run = Run(directory, summary, config, pd.DataFrame())
        length = summary.get("length") or config["data"].get("length")
        if length in LENGTHS:
            lengths[str(config["data_name"])] = LengthAxis(length)
        switches |= {key for key, value in config.items() if value is True}
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
    varied = sorted({key for runs in arms.values() for key in differing_keys(runs)})
    by = VARIANT if varied else "arm"
    found, colours = _findings(paths)
    every = tuple(sorted({data for data, _ in arms}))
    axes = {data: lengths.get(data, LengthAxis("source")) for data in every}
    return StudyRuns(
        study=name, data=every, by=by, lengths=axes, switches=frozenset(switches), runs=sum(map(len, arms.values())),
        varied=tuple(varied), findings=found, colours=colours,
    )  # fmt: skip


def _findings(paths: Sequence[Path]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """What the report says of each data set, and the colours of its arms; nothing while no run is finished."""
    from attnspan.reporting.plots import styles  # it loads matplotlib

    try:
        studies = with_one_legend([build_study(collection) for collection in collect_each(paths)[0]])
    except InputError:
        return {}, {}
    found = {study.data: [*findings(study), *(f"Read with care: {note}" for note in study.notes)] for study in studies}
    return found, {label: style.colour for label, style in styles(studies[0].legend).items()}


def check_mode(mode: str) -> None:
    """Raise an InputError for a mode that does not exist."""
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
    """Log the report that ``command`` made in ``out``, on one study per data set.

    W&B's files go to the subdirectory ``wandb/``. Logging the same study again continues the same W&B run.

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
    run_ids = [run.run_id for study in studies for run in study.collection.runs]
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
        config={"study": name, "data": data, "arms": list(studies[0].legend), "runs": run_ids, "keep": studies[0].keep},
    ) as run:
        import wandb

        run.log({key: value for study in studies for key, value in _media(study, out, len(studies)).items()})
        if (ranking := out / "ranking.png").exists():
            run.log({"ranking": wandb.Image(str(ranking))})
        for study in studies:
            run.summary[f"{study.data}/finding"] = findings(study)[0]
            for one in study.spans:
                run.summary[f"{study.data}/span/{study.axis.key}/{study.arm(one.arm).variant}"] = one.span.length.value
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
    metric, bins = study.metric, [point for point in study.points if not point.region.total]
    known = [point for point in bins if metric.name in point.metrics]
    points = [of_arm for arm in study.legend if (of_arm := [point for point in known if point.arm == arm])]
    found[f"{metric.name}_by_{study.axis.key}"] = wandb.plot.line_series(
        xs=[[point.region.mean_length for point in of_arm] for of_arm in points],
        ys=[[point.metrics[metric.name].value for point in of_arm] for of_arm in points],
        keys=[of_arm[0].arm for of_arm in points],
        title=f"{metric.title} by {study.axis.noun}, {study.data}",
        xname=study.axis.unit,
    )
    if (explorer := directory / EXPLORER).is_file():
        found["explorer"] = wandb.Html(explorer.read_text(encoding="utf-8"), inject=False)
    if excluded := study.collection.excluded:
        failures: list[Any] = [[one.directory.name, str(one.directory), one.reason] for one in excluded]
        found["failures"] = wandb.Table(columns=["run", "directory", "why"], data=failures)
    found["curve"] = wandb.Table(dataframe=csv_files.points_frame(study, study.curve))
    for make in (tables.differences, tables.spans, tables.cost):
        table = make(study)
        if rows := [list(row.cells) for row in table.rows if row.kind != "heading"]:
            found[make.__name__] = wandb.Table(dataframe=pd.DataFrame(rows, columns=list(table.columns)))
    return {f"{study.data}/{name}": value for name, value in found.items()}
