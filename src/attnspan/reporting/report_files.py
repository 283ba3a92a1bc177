"""The files of a report: all of them are written, or none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attnspan.analysis.collection import Excluded
from attnspan.analysis.metrics import ERROR_RATE, Metric
from attnspan.analysis.ranking import Ranking
from attnspan.analysis.study import Study
from attnspan.errors import InputError
from attnspan.evaluation.decoded_study import DecodedStudy
from attnspan.reporting import page, ranking_page, tables
from attnspan.reporting.csv_files import CURVE, TRAINING, csv_files, csv_texts
from attnspan.reporting.explorer.document import EXPLORER, explorer
from attnspan.reporting.latex import latex
from attnspan.reporting.page import INDEX
from attnspan.reporting.pictures.form import PAGE, Form
from attnspan.reporting.plots import Plot

LATEX, RANKING = "tables.tex", "ranking.csv"
_MARKS = ({INDEX, CURVE}, {INDEX, RANKING})
"""A directory with the files of one of these sets is a report, and may be replaced."""


def refuse_foreign(out: Path) -> None:
    """Check that ``out`` may be written: it does not exist, is empty, or is a report.

    Raises:
        InputError: it is something else, which a report must not replace.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: exists and is not a directory")
    if out.is_dir():
        names = {path.name for path in out.iterdir()}
        if names and not any(names >= files for files in _MARKS):
            raise InputError(f"--out {out}: has other files ({min(names)}) and is not a report; it was not changed")


def count_runs(out: Path) -> int:
    """How many runs the report in ``out`` is about; 0 if there is none, or it does not say."""
    return sum(max(0, len(path.read_text(encoding="utf-8").splitlines()) - 1) for path in out.rglob(TRAINING))


def write_report(out: Path, write: Callable[[Path], None]) -> None:
    """Make ``out`` of the files that ``write`` writes into an empty directory, all of them or none.

    An existing report is replaced completely.

    Raises:
        InputError: ``out`` cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        try:
            new, old = temporary / "new", temporary / "old"
            new.mkdir()
            write(new)
            _swap(new, out, old)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror or error})") from error


def _swap(new: Path, out: Path, old: Path) -> None:
    """Move ``out`` to ``old`` and ``new`` to ``out``; if that fails, ``out`` is unchanged."""
    if out.exists():
        out.rename(old)
    try:
        new.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise


def write_study(
    study: Study, directory: Path, command: str, form: Form = PAGE, explored: DecodedStudy | None = None
) -> None:
    """Write the files of a report on one data set into ``directory``.

    The plots in files have ``form``; those of the page have its own. With ``explored``, the explorer is a file too.
    """
    plots = page.all_plots(study)
    in_files = plots if form == PAGE else page.all_plots(study, form)
    for_papers = [
        tables.by_length(study, study.metric),
        tables.differences(study),
        tables.spans(study),
        *(tables.by_length(study, one) for one in _more_metrics(study)),
    ]
    texts = csv_texts(csv_files(study)) | {LATEX: latex([table for table in for_papers if table.rows])}
    texts |= page.pages(study, plots, files=texts, command=command, explorer=EXPLORER if explored else None)
    if explored:
        texts[EXPLORER] = explorer(study, explored, title=page.title_of(study))
    _write(directory, in_files, texts)


def _more_metrics(study: Study) -> list[Metric]:
    """Those that papers show besides the one of the study."""
    errors = [ERROR_RATE] if study.metric != ERROR_RATE else []
    every = (*errors, *study.own, *study.corpus_scores, *study.attention_metrics)
    return [metric for metric in every if metric != study.metric]


def write_ranking(
    studies: Sequence[Study],
    rankings: Sequence[Ranking],
    excluded: Sequence[Excluded],
    directory: Path,
    command: str,
    form: Form,
    explored: Mapping[str, DecodedStudy],
) -> None:
    """Write the files of a ranking, and a report on each data set in a directory of its own.

    ``explored`` has what the explorer of a data set shows, by the name of the data set.
    """
    for study in studies:
        (directory / study.data).mkdir()
        write_study(study, directory / study.data, command, form, explored.get(study.data))
    plots = {"ranking": ranking_page.ranking_plot(studies, rankings, form)} if rankings else {}
    texts = csv_texts(ranking_page.frames(studies, rankings))
    texts |= {LATEX: latex([one for pair in ranking_page.ranking_tables(studies, rankings) for one in pair])}
    curves = {f"{study.data}/{CURVE}": csv_files(study)[CURVE] for study in studies}
    texts |= ranking_page.pages(studies, rankings, excluded, command, files=texts | csv_texts(curves))
    _write(directory, plots, texts)


def _write(directory: Path, plots: Mapping[str, Plot], texts: Mapping[str, str]) -> None:
    for name, plot in plots.items():
        for suffix in (".png", ".svg", ".pdf"):
            plot.save(directory / f"{name}{suffix}")
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
