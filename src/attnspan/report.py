"""``attnspan-report``: run directories in, a table in the terminal and a report directory out.

Runs of several data sets give a ranking, with a report on each data set beneath it.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from attnspan import page, plots, ranking_page, tables, wandb_study
from attnspan.bins import parse_edges
from attnspan.collect import Excluded, collect_each
from attnspan.errors import InputError
from attnspan.latex import latex
from attnspan.measures import ERROR_RATE
from attnspan.ranking import Ranking, rank
from attnspan.study import Study, build_study, with_one_legend
from attnspan.terminal import ListParser, open_console
from attnspan.wording import findings

INDEX = "index.html"
CURVE = "curve.csv"
RANKING = "ranking.csv"
_OF_A_REPORT = ({INDEX, CURVE}, {INDEX, RANKING})


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code: 2 for input that cannot be used, said in one line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(arguments)
    try:
        edges = parse_edges(options.bins) if options.bins else None
        out = Path(options.out)
        refuse_foreign(out)
        if options.wandb:
            wandb_study.check_mode(options.wandb)
        collections, excluded = collect_each([Path(run) for run in options.runs])
        settings = {"baseline": options.baseline, "edges": edges, "keep": options.keep, "text": options.text}
        settings |= {"loss": options.loss, "ter": options.ter}
        studies = with_one_legend([build_study(collection, **settings) for collection in collections])
        for one in excluded:
            print(f"left out: {one.directory}: {one.reason}", file=sys.stderr)
        command = shlex.join(["attnspan-report", *arguments])
        if len(studies) == 1:
            write_report(out, lambda directory: _write_files(studies[0], directory, out, command))
            show(studies[0], out)
        else:
            rankings = rank(studies)
            write_report(out, lambda directory: _write_ranking(studies, rankings, excluded, directory, out, command))
            show_ranking(studies, rankings, out)
        if options.wandb:
            wandb_study.mirror_study(studies, out, mode=options.wandb, command=command)
    except InputError as error:
        print(f"attnspan-report: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = ListParser(
        prog="attnspan-report",
        fromfile_prefix_chars="@",
        description="Compare finished runs: quality by source length, paired differences to a baseline, and spans; "
        "runs of several data sets are ranked too, above a report on each. Prints tables and writes a page with its "
        "plots and numbers.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run directory, a directory above some, or @FILE that lists them"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="where the report goes, as in reports/long_sequences"
    )
    parser.add_argument("--baseline", metavar="ARM", help="the arm that the others are compared to (default: plain)")
    parser.add_argument(
        "--bins",
        metavar="EDGES",
        help="edges of the source length bins, as in 0,10,20,40 (default: about ten even ones, "
        "with an edge on the longest training length)",
    )
    parser.add_argument(
        "--keep",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="the span ends where less than this share of the best arm's quality on the shortest sources is left "
        "(default: 0.5)",
    )
    parser.add_argument(
        "--loss",
        type=float,
        metavar="NATS",
        help="time training to this validation loss (default: the least that every run came down to)",
    )
    parser.add_argument(
        "--text",
        action=argparse.BooleanOptionalAction,
        help="the target is text: give corpus BLEU, chrF and perplexity too (default: where the target is cut into "
        "subwords, or words and signs)",
    )
    parser.add_argument(
        "--wandb",
        metavar="MODE",
        help="log the comparison and this report to W&B too, as one run of job type study: offline, online, or as-runs "
        "(the mode of the runs)",
    )
    parser.add_argument("--ter", action="store_true", help="of text, give TER too, which takes minutes")
    return parser


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


def _write_files(study: Study, directory: Path, out: Path, command: str) -> None:
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


def _write_ranking(
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
        _write_files(study, directory / study.data, out / study.data, command)
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


def show_ranking(studies: Sequence[Study], rankings: Sequence[Ranking], out: Path) -> None:
    """Print the finding, the standings, what to read with care, and where the pages lie."""
    console = open_console()
    console.print(Text(ranking_page.ranking_findings(studies, rankings)[0]))
    for standings, _ in ranking_page.ranking_tables(studies, rankings):
        console.print(Text(f"\n{standings.caption}", style="bold"))
        console.print(_rich(standings))
    for note in ranking_page.notes(studies):
        console.print(Text(f"note: {note}"))
    for path in (out, *(out / study.data for study in studies)):
        console.print(Text(f"report: {path / INDEX}"), soft_wrap=True)


def show(study: Study, out: Path, console: Console | None = None) -> None:
    """Print the finding, the tables, what to read with care, and where the page lies."""
    console = console or open_console()
    console.print(Text(findings(study)[0]))
    for table in (*tables.degradation_blocks(study), tables.differences(study), tables.spans(study)):
        if table.rows:
            console.print(Text(f"\n{table.caption}", style="bold"))
            console.print(_rich(table))
    for note in study.notes:
        console.print(Text(f"note: {note}"))
    console.print(Text(f"report: {out / INDEX}"), soft_wrap=True)


def _rich(table: tables.Table) -> RichTable:
    rich = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    for index, column in enumerate(table.columns):
        rich.add_column(column, justify="left" if index < table.labels else "right", overflow="fold")
    for row in table.rows:
        style = "bold" if row.kind == "heading" else "dim" if row.kind == "total" else None
        rich.add_row(*(Text(cell) for cell in row.cells), style=style)
    return rich


if __name__ == "__main__":
    sys.exit(main())
