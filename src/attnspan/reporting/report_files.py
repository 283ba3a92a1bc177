"""The files of a report: all of them are written, or none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from attnspan.analysis.collection import Excluded
from attnspan.analysis.metrics import ERROR_RATE
from attnspan.analysis.ranking import Ranking
from attnspan.analysis.study import Study
from attnspan.errors import InputError
from attnspan.reporting import page, plots, ranking_page, tables
from attnspan.reporting.latex import latex

INDEX = "index.html"


CURVE = "curve.csv"


RANKING = "ranking.csv"


_OF_A_REPORT = ({INDEX, CURVE}, {INDEX, RANKING})


def refuse_foreign(out: Path) -> None:
    """Make sure that ``out`` may be written: not there, empty, or a report.

    Raises:
        InputError: it is something else, which a report must not replace.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is there and no directory")
    if out.is_dir():
        names = {path.name for path in out.iterdir()}
        if names and not any(names >= files for files in _OF_A_REPORT):
            raise InputError(f"--out {out}: holds other files ({min(names)}) and no report; it is left as it is")


def write_report(out: Path, write: Callable[[Path], None]) -> None:
    """Write the report's files: all of them, or none. A report that was there is replaced whole.

    Args:
        out: the report's directory.
        write: writes the files into a directory that is there and empty.

    Raises:
        InputError: ``out`` cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        try:
            new, old = workshop / "new", workshop / "old"
            new.mkdir()
            write(new)
            _swap(new, out, old)
        finally:
            shutil.rmtree(workshop, ignore_errors=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror or error})") from error


def _swap(new: Path, out: Path, old: Path) -> None:
    """Put ``new`` in the place of ``out``, which goes to ``old``; if that fails, ``out`` is as it was."""
    if out.exists():
        out.rename(old)
    try:
        new.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise


def write_study(study: Study, directory: Path, out: Path, command: str) -> None:
    """Write the files of a report on one data set into ``directory``, which will be ``out``."""
    degradation = plots.degradation(study)
    advantage = plots.advantage(study) if study.differences else None
    attention = plots.attention(study) if study.attention else None
    for name, plot in (("degradation", degradation), ("advantage", advantage), ("attention", attention)):
        if plot:
            for suffix in (".png", ".svg"):
                plot.save(directory / f"{name}{suffix}")
    frames: dict[str, pd.DataFrame] = {
        CURVE: tables.points_frame(study.curve),
        "seeds.csv": tables.seeds_frame(study.curve),
        "differences.csv": tables.differences_frame(study),
        "spans.csv": tables.spans_frame(study),
        "trends.csv": tables.trends_frame(study),
    }
    if study.attention:
        frames["attention.csv"] = tables.points_frame(study.attention)
        frames["attention_seeds.csv"] = tables.seeds_frame(study.attention)
    if study.translation:
        frames["text.csv"] = tables.points_frame(study.translation)
        frames["text_seeds.csv"] = tables.seeds_frame(study.translation)
    for name, frame in frames.items():
        frame.to_csv(directory / name, index=False, float_format="%.6g")
    (directory / "report.md").write_text(page.markdown_page(study, out=out, command=command), encoding="utf-8")
    for_papers = [
        tables.by_length(study, ERROR_RATE),
        tables.differences(study),
        tables.spans(study),
        *page.text_tables(study),
        *(tables.by_length(study, metric) for metric in study.attention_metrics),
    ]
    (directory / "tables.tex").write_text(latex([table for table in for_papers if table.rows]), encoding="utf-8")
    text = page.html_page(
        study, degradation=degradation, advantage=advantage, attention=attention, out=out, command=command
    )
    (directory / INDEX).write_text(text, encoding="utf-8")


def write_ranking(
    studies: Sequence[Study],
    rankings: Sequence[Ranking],
    excluded: Sequence[Excluded],
    directory: Path,
    out: Path,
    command: str,
) -> None:
    """What stands above, and beneath it a report on each data set in a directory of its own."""
    for study in studies:
        (directory / study.data).mkdir()
        write_study(study, directory / study.data, out / study.data, command)
    if rankings:
        plot = ranking_page.ranking_plot(studies, rankings)
        for suffix in (".png", ".svg"):
            plot.save(directory / f"ranking{suffix}")
    for name, frame in ranking_page.frames(studies, rankings).items():
        frame.to_csv(directory / name, index=False, float_format="%.6g")
    for_papers = [table for both in ranking_page.ranking_tables(studies, rankings) for table in both]
    (directory / "tables.tex").write_text(latex(for_papers), encoding="utf-8")
    for name, make in (("report.md", ranking_page.markdown_page), (INDEX, ranking_page.html_page)):
        (directory / name).write_text(make(studies, rankings, excluded, command), encoding="utf-8")
