"""``attnspan-report``: compare finished runs in the terminal and in a report directory.

Runs of several data sets give a ranking, with a report on each data set below it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from attnspan.analysis.collection import collect_each
from attnspan.analysis.lengths.bins import parse_edges
from attnspan.analysis.metrics import ERROR_RATE
from attnspan.analysis.own_metric import own_metrics, with_own_metrics
from attnspan.analysis.ranking import Ranking, rank
from attnspan.analysis.study import Study, build_study, with_one_legend
from attnspan.cli.console import ListParser, add_trusted, command, open_console
from attnspan.config.config_files import ATTNSPANS, ConfigFiles
from attnspan.errors import InputError
from attnspan.evaluation.decoded_study import DecodedStudy, decode_study
from attnspan.reporting import ranking_page, tables
from attnspan.reporting.findings import findings
from attnspan.reporting.pictures.form import form_for_files
from attnspan.reporting.report_files import INDEX, count_runs, refuse_foreign, write_ranking, write_report, write_study
from attnspan.tracking import study as wandb_study


@command("attnspan-report")
def main(arguments: list[str]) -> None:
    """Compare the runs, write the report, and print the findings."""
    options = _parser().parse_args(arguments)
    edges = parse_edges(options.bins) if options.bins else None
    form = form_for_files(options.figure_size, options.font_size)
    out = Path(options.out)
    refuse_foreign(out)
    if options.wandb:
        wandb_study.check_mode(options.wandb)
    files = _config_files(options.config_dir)
    own = own_metrics(files)
    collections, excluded = collect_each([Path(run) for run in options.runs], files)
    settings = {
        name: getattr(options, name) for name in ("baseline", "length", "keep", "text", "ter", "metric", "loss")
    }
    studies = with_one_legend(
        [build_study(with_own_metrics(one, own), edges=edges, own=own, **settings) for one in collections]
    )
    for one in excluded:
        print(f"excluded: {one.directory}: {one.reason}", file=sys.stderr)
    this = shlex.join(["attnspan-report", *arguments])
    before, now = count_runs(out), sum(len(arm.runs) for study in studies for arm in study.arms)
    if before > now:
        print(f"{out}: had a report on {before} runs, which one on {now} replaces", file=sys.stderr)
    explored = _explored(studies, options.explore, options.trusted)
    if len(studies) == 1:
        of_study = explored.get(studies[0].data)
        write_report(out, lambda directory: write_study(studies[0], directory, this, form, of_study))
        show(studies[0], out)
    else:
        rankings = rank(studies)
        write_report(out, lambda directory: write_ranking(studies, rankings, excluded, directory, this, form, explored))
        show_ranking(studies, rankings, out)
    for note in dict.fromkeys(note for one in explored.values() for note in one.notes):
        print(f"explorer: {note}", file=sys.stderr)
    if options.wandb:
        wandb_study.mirror_study(studies, out, mode=options.wandb, command=this)


def _parser() -> argparse.ArgumentParser:
    parser = ListParser(
        prog="attnspan-report",
        description="Compare finished runs: quality by length, paired differences to a baseline, and spans. "
        "Runs of several data sets are also ranked, above a report on each. Prints tables and writes a page, an "
        "explorer, plots, csv files and LaTeX tables.",
    )
    parser.add_runs()
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="directory of the report, as in reports/long_sequences")
    add(
        "--baseline", metavar="ARM",
        help="the arm to which the others are compared (default: plain), or a setting in which variants of an arm "
        "differ, as in decoding.beam_size=1: then every arm is compared to itself with that setting",
    )  # fmt: skip
    add(
        "--length", metavar="LENGTH",
        help="the length by which results are given: source or target, in tokens, or source-multiple or "
        "target-multiple, as multiples of the longest in training (default: data.length of the runs, else the side on "
        "which the test goes beyond training)",
    )  # fmt: skip
    add(
        "--bins", metavar="EDGES",
        help="edges of the length bins, as in 0,10,20,40 (default: about ten even bins, with an edge on the "
        "longest training length)",
    )  # fmt: skip
    add(
        "--metric", default=ERROR_RATE.name, metavar="NAME",
        help="by which arms are compared, plotted and ranked, as in exact_match, nll or bleu (default: error_rate)",
    )  # fmt: skip
    add(
        "--keep", type=float, default=0.5, metavar="SHARE",
        help="the span ends where less than this share of the best arm's quality on the shortest examples is left "
        "(default: 0.5)",
    )  # fmt: skip
    add(
        "--loss", type=float, metavar="NATS",
        help="time the training up to this validation loss (default: the lowest that every run reached)",
    )  # fmt: skip
    add(
        "--text", action=argparse.BooleanOptionalAction,
        help="the target is text: give corpus BLEU, chrF and perplexity too (default: if the target is cut into "
        "subwords, or into words and punctuation)",
    )  # fmt: skip
    add(
        "--wandb", metavar="MODE",
        help="also log the comparison and the report to W&B, as a run of job type study: offline, online, or as-runs "
        "(the mode of the runs)",
    )  # fmt: skip
    add(
        "--explore", type=int, default=40, metavar="N",
        help="examples of each bin that the explorer shows; the runs' best checkpoints decode them again (default: 40; "
        "0: no explorer)",
    )  # fmt: skip
    add_trusted(parser)
    _add_names_and_looks(parser)
    add("--ter", action="store_true", help="for text, give TER too, which takes minutes")
    return parser


def _add_names_and_looks(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--config-dir", metavar="DIR",
        help="a folder of your own config files: labels of arms and data sets in decoder/ and data/, and metrics in "
        "metric/",
    )  # fmt: skip
    add(
        "--figure-size", metavar="WIDTHxHEIGHT",
        help="of the curve as a file, in inches, as in 3.3x2.8; other plots have its width and keep their proportions "
        "to it (default: 7.2x4.4)",
    )  # fmt: skip
    add("--font-size", type=float, metavar="POINTS", help="of the letters of plots as files (default: 9)")


def _config_files(directory: str | None) -> ConfigFiles:
    if directory is None:
        return ATTNSPANS
    if not Path(directory).is_dir():
        raise InputError(f"--config-dir {directory}: no such directory")
    return ConfigFiles((Path(directory),))


def _explored(studies: Sequence[Study], per_bin: int, trusted: Sequence[str]) -> dict[str, DecodedStudy]:
    """What the explorer of each data set shows, by the name of the data set."""
    if per_bin < 0:
        raise InputError(f"--explore {per_bin}: is a number of examples, and 0 for no explorer")
    return {study.data: decode_study(study, per_bin, trusted=trusted) for study in studies if per_bin}


def show_ranking(studies: Sequence[Study], rankings: Sequence[Ranking], out: Path) -> None:
    """Print the main finding, the standings, the notes and the paths of the pages."""
    standings = [table for table, _ in ranking_page.ranking_tables(studies, rankings)]
    finding, notes = ranking_page.ranking_findings(studies, rankings)[0], ranking_page.notes(studies)
    _show(open_console(), finding, standings, notes, [out, *(out / study.data for study in studies)])


def show(study: Study, out: Path, console: Console | None = None) -> None:
    """Print the main finding, the tables, the notes and the path of the page."""
    shown = (*tables.degradation_blocks(study), tables.differences(study), tables.spans(study))
    _show(console or open_console(), findings(study)[0], shown, study.notes, [out])


def _show(
    console: Console, finding: str, shown: Iterable[tables.Table], notes: Iterable[str], reports: Iterable[Path]
) -> None:
    console.print(Text(finding))
    for table in shown:
        if table.rows:
            console.print(Text(f"\n{table.caption}", style="bold"))
            console.print(_rich_table(table))
    for note in notes:
        console.print(Text(f"note: {note}"))
    for out in reports:
        console.print(Text(f"report: {out / INDEX}"), soft_wrap=True)


def _rich_table(table: tables.Table) -> RichTable:
    rich = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    for index, column in enumerate(table.columns):
        rich.add_column(column, justify="left" if index < table.labels else "right", overflow="fold")
    for row in table.rows:
        style = "bold" if row.kind == "heading" else "dim" if row.kind == "total" else None
        rich.add_row(*(Text(cell) for cell in row.cells), style=style)
    return rich


if __name__ == "__main__":
    sys.exit(main())
