"""``attnspan-gradient-flow``: how far the gradient reaches, before and after training, against the distance it has to
go.

What is measured stands at the head of :mod:`attnspan.evaluation.gradient_norms`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from attnspan.analysis.collection import collect
from attnspan.analysis.gradient_flow import INITIAL, PER, TRAINED, fit_slopes, norms_by_distance
from attnspan.analysis.study import build_study
from attnspan.cli.console import ListParser, open_console
from attnspan.errors import InputError
from attnspan.evaluation.gradient_flow import MAX_OUTPUTS, gold_links, measure_norms
from attnspan.files import write_text
from attnspan.reporting.formatting import NONE, number

if TYPE_CHECKING:
    pass


GOLD = "the source positions that each output needs are the gold alignment's"
STAND_IN = (
    "no gold alignment is known: the source position that output t of T needs is taken to be the one at the same "
    "relative place, floor((t - 1/2) S / T) + 1 of S; true only of what is said in order, and there within a few tokens"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code: 2 for input that cannot be used, said in one line."""
    options = _parser().parse_args(arguments)
    try:
        reach(
            [Path(run) for run in options.runs],
            out=Path(options.out),
            examples=options.examples,
            trusted=options.trusted,
        )
    except InputError as error:
        if os.environ.get("ATTNSPAN_TRACEBACK"):  # for developers
            raise
        print(f"attnspan-gradient-flow: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = ListParser(
        prog="attnspan-gradient-flow",
        fromfile_prefix_chars="@",
        description="How much of the loss of an output token reaches the source token that it needs, in the models of "
        "finished runs as they were before training and as they are after it: the norm of the gradient against the "
        "number of recurrent steps between the two in a plain encoder-decoder. Prints a table; writes reach.csv, "
        "slopes.csv, reach.png and reach.svg.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run directory, a directory above some, or @FILE that lists them"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where the files go, as in reports/reach")
    parser.add_argument(
        "--examples",
        type=int,
        default=40,
        metavar="N",
        help="test examples to look at, the same for every run, spread evenly over the test split by length "
        "(default: 40)",
    )
    parser.add_argument(
        "--trusted",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a further package whose classes a run's config may name, for arms of your own; may be repeated",
    )
    return parser


def reach(paths: Sequence[Path], *, out: Path, examples: int, trusted: Sequence[str]) -> None:
    """Measure, print and write.

    Args:
        paths: of runs of one data set, or of directories above them.
        out: directory of the files.
        examples: how many of the test split's.
        trusted: packages whose classes the runs' configs may name, besides attnspan.

    Raises:
        InputError: one of them cannot be used; says why.
    """
    collection = collect(paths)
    for excluded in collection.excluded:
        print(f"left out: {excluded.directory}: {excluded.reason}", file=sys.stderr)
    arms = build_study(collection).arms  # in the order, and so in the colours, of the report
    records = collection.runs[0].records
    if not 1 <= examples <= len(records):
        raise InputError(f"--examples {examples}: the test split has 1 to {len(records)} to give")
    rows = np.unique(np.linspace(0, len(records) - 1, examples).round().astype(int))  # records are sorted by length
    chosen = records.iloc[rows]
    gold = gold_links(collection.runs[0], chosen["example_id"].tolist(), trusted)

    pairs = []
    for arm in arms:
        for run in arm.runs:
            print(f"{arm.label}, seed {run.seed} ...", file=sys.stderr, flush=True)
            pairs.append(measure_norms(run, chosen, gold, trusted).assign(arm=arm.label, seed=run.seed))
    measured = pd.concat(pairs, ignore_index=True)
    bins, slopes = norms_by_distance(measured), fit_slopes(measured)
    write_text(out / "reach.csv", bins.to_csv(index=False, float_format="%.6g"))
    write_text(out / "slopes.csv", slopes.to_csv(index=False, float_format="%.6g"))
    how = GOLD if gold else STAND_IN
    from attnspan.reporting.gradient_flow_plot import draw, save  # matplotlib, when everything else is done

    figure = draw(
        measured, slopes, note="j from the gold alignment" if gold else "j at t's relative place (a stand-in)"
    )
    for suffix in (".png", ".svg"):
        save(figure, out / f"reach{suffix}")
    show(measured, slopes, examples=len(chosen), how=how, console=open_console())
    print(f"files: {out / 'reach.csv'}, slopes.csv, reach.png, reach.svg")


def show(measured: pd.DataFrame, slopes: pd.DataFrame, *, examples: int, how: str, console: Console) -> None:
    """Print how it was measured, and the slopes with the norms at both ends."""
    ends = [int(measured["steps"].min()), int(measured["steps"].max())]
    near = ends[0] + PER - 1
    far = max(ends[1] - PER + 1, near + 1)
    console.print(
        Text(f"|| d loss_t / d e_j ||, {examples} test examples, at most {MAX_OUTPUTS} outputs of each; {how}.")
    )
    console.print(Text("Distance: recurrent steps between output t and source token j in a plain encoder-decoder."))
    console.print(Text("A model that is sure of a token has little gradient left: compare slopes more than heights.\n"))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    table.add_column("arm")
    columns = ("seeds", "pairs", f"decades lost\nper {PER} steps", f"median,\n{ends[0]}–{near} steps")
    for column in (*columns, f"median,\n{far} steps and more"):
        table.add_column(column, justify="right")
    for state in (INITIAL, TRAINED):
        table.add_row(Text({INITIAL: "before training", TRAINED: "after training"}[state], style="bold"))
        for one in slopes[slopes["state"] == state].to_dict("records"):
            pairs = measured[(measured["arm"] == one["arm"]) & (measured["state"] == state)]
            interval = NONE if np.isnan(one["low"]) else f"[{number(one['low'], 2)}, {number(one['high'], 2)}]"
            medians = [pairs["norm"][at].median() for at in (pairs["steps"] <= near, pairs["steps"] >= far)]
            table.add_row(
                Text(one["arm"]),
                str(one["seeds"]),
                f"{one['pairs']:,}",
                Text(f"{number(one['decades'], 2)} {interval}"),
                *(NONE if np.isnan(median) else f"{median:.1e}" for median in medians),
            )
    console.print(table)
    if (slopes["seeds"] > 1).any():
        console.print(Text("In brackets: 95% t interval over seeds."))


if __name__ == "__main__":
    sys.exit(main())
