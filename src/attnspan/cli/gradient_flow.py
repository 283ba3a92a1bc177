"""``attnspan-gradient-flow``: the norm of the gradient against its distance, before and after training.

:mod:`attnspan.evaluation.gradient_norms` defines what is measured.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from attnspan.analysis.collection import collect
from attnspan.analysis.gradient_flow import PER, TITLES, fit_slopes, norms_by_distance
from attnspan.analysis.study import build_study
from attnspan.cli.console import ListParser, add_trusted, command, open_console
from attnspan.errors import InputError
from attnspan.files import write_text
from attnspan.reporting.formatting import NONE, number
from attnspan.runs.layout import trained_runs

GOLD = "the source positions that each output needs are those of the gold alignment"
SAME_PLACE = (
    "no gold alignment is known: the source position that output t of T needs is taken to be the one at the same "
    "relative place, floor((t - 1/2) S / T) + 1 of S; this holds only where the order is the same, and there within a "
    "few tokens"
)


def _parser() -> argparse.ArgumentParser:
    parser = ListParser(
        prog="attnspan-gradient-flow",
        description="Measure the gradient of an output token's loss with respect to the source token that it needs, in "
        "the models of finished runs before and after training: its norm against the number of recurrent steps between "
        "the two tokens in a plain encoder-decoder. Prints a table; writes gradient_flow.csv, slopes.csv, "
        "gradient_flow.png and gradient_flow.svg.",
    )
    parser.add_runs()
    parser.add_argument("--out", required=True, metavar="DIR", help="directory of the files")
    parser.add_argument(
        "--examples", type=int, default=40, metavar="N",
        help="number of test examples, the same for every run, evenly spread over the test split by length (default: "
        "40)",
    )  # fmt: skip
    add_trusted(parser)
    return parser


@command("attnspan-gradient-flow")
def main(arguments: list[str]) -> None:
    """Measure, print and write."""
    options = _parser().parse_args(arguments)
    out, examples, trusted = Path(options.out), options.examples, options.trusted
    collection = collect(trained_runs(map(Path, options.runs)))
    for excluded in collection.excluded:
        print(f"excluded: {excluded.directory}: {excluded.reason}", file=sys.stderr)
    arms = build_study(collection).arms  # in the order and the colours of the report
    records = collection.runs[0].records
    if not 1 <= examples <= len(records):
        raise InputError(f"--examples {examples}: the test split has {len(records)} examples; give 1 to {len(records)}")
    rows = np.unique(np.linspace(0, len(records) - 1, examples).round().astype(int))  # records are sorted by length
    chosen = records.iloc[rows]
    from attnspan.evaluation.gradient_norms import measure_norms  # torch takes seconds to import
    from attnspan.evaluation.prepared_test import gold_links

    gold = gold_links(collection.runs[0], chosen["example_id"].tolist(), trusted)

    pairs = []
    for arm in arms:
        for run in arm.runs:
            print(f"{arm.label}, seed {run.seed} ...", file=sys.stderr, flush=True)
            pairs.append(measure_norms(run, chosen, gold, trusted).assign(arm=arm.label, seed=run.seed))
    measured = pd.concat(pairs, ignore_index=True)
    slopes = fit_slopes(measured)
    for name, frame in (("gradient_flow.csv", norms_by_distance(measured)), ("slopes.csv", slopes)):
        write_text(out / name, frame.to_csv(index=False, float_format="%.6g"))
    from attnspan.reporting.gradient_flow_plot import draw, save  # matplotlib takes a second to import

    note = "j from the gold alignment" if gold else "j at the relative place of t (no alignment is known)"
    figure = draw(measured, slopes, note=note)
    for suffix in (".png", ".svg"):
        save(figure, out / f"gradient_flow{suffix}")
    show(measured, slopes, examples=len(chosen), alignment=GOLD if gold else SAME_PLACE, console=open_console())
    print(f"files: {out / 'gradient_flow.csv'}, slopes.csv, gradient_flow.png, gradient_flow.svg")


def show(measured: pd.DataFrame, slopes: pd.DataFrame, *, examples: int, alignment: str, console: Console) -> None:
    """Print how it was measured, the slopes, and the norms at the shortest and the longest distances."""
    from attnspan.evaluation.gradient_norms import MAX_OUTPUTS

    ends = [int(measured["steps"].min()), int(measured["steps"].max())]
    near = ends[0] + PER - 1
    far = max(ends[1] - PER + 1, near + 1)
    for line in (
        f"|| d loss_t / d e_j ||, {examples} test examples, at most {MAX_OUTPUTS} outputs of each; {alignment}.",
        "Distance: recurrent steps between output t and source token j in a plain encoder-decoder.",
        "Where a model is certain of a token its gradient is small: compare slopes, not heights.\n",
    ):
        console.print(Text(line))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    columns = ("arm", "seeds", "pairs", f"decades lost\nper {PER} steps", f"median,\n{ends[0]}–{near} steps")
    for column in (*columns, f"median,\n{far} steps and more"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for state, title in TITLES.items():
        table.add_row(Text(title, style="bold"))
        for one in slopes[slopes["state"] == state].to_dict("records"):
            pairs = measured[(measured["arm"] == one["arm"]) & (measured["state"] == state)]
            interval = NONE if np.isnan(one["low"]) else f"[{number(one['low'], 2)}, {number(one['high'], 2)}]"
            medians = [pairs["norm"][at].median() for at in (pairs["steps"] <= near, pairs["steps"] >= far)]
            ends_of_curve = (NONE if np.isnan(median) else f"{median:.1e}" for median in medians)
            slope = Text(f"{number(one['decades'], 2)} {interval}")
            table.add_row(Text(one["arm"]), str(one["seeds"]), f"{one['pairs']:,}", slope, *ends_of_curve)
    console.print(table)
    if (slopes["seeds"] > 1).any():
        console.print(Text("In brackets: 95% t interval over seeds."))


if __name__ == "__main__":
    sys.exit(main())
