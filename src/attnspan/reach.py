"""``attnspan-reach``: how far the gradient reaches, before and after training, against the distance it has to go.

What is measured stands at the head of :mod:`attnspan.gradients`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy import stats

from attnspan.alignment import Gold, Link
from attnspan.collect import Run, collect
from attnspan.errors import InputError
from attnspan.rundir import write_text
from attnspan.study import build_study
from attnspan.terminal import ListParser, open_console
from attnspan.wording import NONE, number

if TYPE_CHECKING:
    from attnspan.gradients import Aligned
    from attnspan.loaded import LoadedRun

INITIAL, TRAINED = "initial", "trained"
PER = 10
"""Bins are so many steps wide, and slopes are per so many."""
_OUTPUTS = 12
"""Most outputs of an example that are looked at."""
_LEAST = np.finfo(np.float64).tiny
"""Stands for a norm of 0, which has no logarithm."""

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
        print(f"attnspan-reach: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = ListParser(
        prog="attnspan-reach",
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
    gold = _gold(collection.runs[0], chosen["example_id"].tolist(), trusted)

    pairs = []
    for arm in arms:
        for run in arm.runs:
            print(f"{arm.label}, seed {run.seed} ...", file=sys.stderr, flush=True)
            pairs.append(_measured(run, chosen, gold, trusted).assign(arm=arm.label, seed=run.seed))
    measured = pd.concat(pairs, ignore_index=True)
    bins, slopes = binned(measured), fitted(measured)
    write_text(out / "reach.csv", bins.to_csv(index=False, float_format="%.6g"))
    write_text(out / "slopes.csv", slopes.to_csv(index=False, float_format="%.6g"))
    how = GOLD if gold else STAND_IN
    from attnspan.reach_plot import draw, save  # matplotlib, when everything else is done

    figure = draw(
        measured, slopes, note="j from the gold alignment" if gold else "j at t's relative place (a stand-in)"
    )
    for suffix in (".png", ".svg"):
        save(figure, out / f"reach{suffix}")
    show(measured, slopes, examples=len(chosen), how=how, console=open_console())
    print(f"files: {out / 'reach.csv'}, slopes.csv, reach.png, reach.svg")


def _gold(run: Run, ids: Sequence[str], trusted: Sequence[str]) -> dict[str, list[Link]] | None:
    """The sure links of the examples ``ids``; None where the data has none."""
    from attnspan.build import build_corpus, refuse_foreign_targets
    from attnspan.data.corpus import ALIGNMENT
    from attnspan.data.prepare import prepare

    refuse_foreign_targets({"data": run.config.get("data", {})}, ("attnspan", *trusted))
    corpus = build_corpus(run.config)
    if not (getattr(corpus, "aligned", False) or getattr(corpus, "alignment", None)):
        return None  # and the corpus itself is not needed: the records have its test split
    prepared = prepare(corpus, cache_dir=Path(os.environ.get("ATTNSPAN_CACHE") or run.config["cache_dir"]))
    if prepared.test_fingerprint != run.summary["test_fingerprint"]:
        raise InputError(f"{run.directory}: its test split is not the one that its data config describes today")
    if ALIGNMENT not in prepared.test.column_names:
        return None
    rows = {name: row for row, name in enumerate(prepared.test["id"])}
    found = {}
    for name in ids:
        example = prepared.test[rows[name]]
        S, T = len(example["source_ids"]), len(example["target_ids"])
        found[name] = sorted(Gold.read(example[ALIGNMENT], where=name, source_length=S, target_length=T).sure)
    return found


def same_place(source_length: int, target_length: int) -> list[Link]:
    """A stand-in for an alignment: each target position with the source position at the same relative place."""
    return [((2 * t + 1) * source_length // (2 * target_length), t) for t in range(target_length)]


def _measured(
    run: Run, chosen: pd.DataFrame, gold: dict[str, list[Link]] | None, trusted: Sequence[str]
) -> pd.DataFrame:
    """One row a state and pair: distance in steps, norm."""
    from attnspan.gradients import gradient_norms, initial_model, steps_between
    from attnspan.loaded import load_run  # torch takes seconds to start: what is wrong until here is told without it

    loaded = load_run(run.directory, trusted=trusted)
    examples = list(_aligned(loaded, chosen, gold))
    rows = []
    for state, model in ((INITIAL, initial_model(loaded)), (TRAINED, loaded.model)):
        for example, norms in zip(examples, gradient_norms(model, examples, outputs=_OUTPUTS), strict=True):
            for link, norm in norms.items():
                rows.append((state, steps_between(model.encoder, link, len(example.source)), norm))
    return pd.DataFrame(rows, columns=["state", "steps", "norm"])


def _aligned(loaded: LoadedRun, chosen: pd.DataFrame, gold: dict[str, list[Link]] | None) -> Iterator[Aligned]:
    from attnspan.gradients import Aligned

    for row in chosen.itertuples():
        source = loaded.source_tokenizer.encode(str(row.source))
        target = loaded.target_tokenizer.encode(str(row.reference))
        links = gold[str(row.example_id)] if gold else same_place(len(source), len(target))
        yield Aligned(source=source, target=target, links=links)


def binned(measured: pd.DataFrame) -> pd.DataFrame:
    """reach.csv: the norms of each arm, seed and state, in bins of distance: more than ``above``, at most ``up_to``."""
    logs = measured.assign(
        above=(measured["steps"] - 1) // PER * PER, log10=np.log10(measured["norm"].clip(lower=_LEAST))
    )
    groups = logs.groupby(["arm", "seed", "state", "above"], sort=False)
    table = groups.agg(median=("norm", "median"), mean_log10=("log10", "mean"), n=("norm", "size")).reset_index()
    table.insert(4, "up_to", table["above"] + PER)
    return table.sort_values(["arm", "seed", "state", "above"], ignore_index=True)


def fitted(measured: pd.DataFrame) -> pd.DataFrame:
    """slopes.csv: per arm and state the decades that the norm loses with every 10 more steps, above 0 for a loss.

    Each seed has a least-squares line through log10 of the norms; ``decades`` is the mean of their slopes, ``low`` and
    ``high`` bound its 95% t interval over seeds, nan with one seed.
    """
    rows = []
    for (arm, state), part in measured.groupby(["arm", "state"], sort=False):
        lost = np.array([_decades_lost(of_seed) for _, of_seed in part.groupby("seed")])
        half = np.nan
        if len(lost) > 1:
            half = float(stats.t.ppf(0.975, len(lost) - 1) * lost.std(ddof=1) / np.sqrt(len(lost)))
        mean = float(lost.mean())
        rows.append((arm, state, mean, mean - half, mean + half, len(lost), len(part)))
    return pd.DataFrame(rows, columns=["arm", "state", "decades", "low", "high", "seeds", "pairs"])


def _decades_lost(pairs: pd.DataFrame) -> float:
    steps = pairs["steps"].to_numpy(dtype=np.float64)
    away = steps - steps.mean()
    logs = np.log10(pairs["norm"].clip(lower=_LEAST).to_numpy())
    spread = float(away @ away)
    return -PER * float(away @ logs) / spread if spread else float("nan")


def show(measured: pd.DataFrame, slopes: pd.DataFrame, *, examples: int, how: str, console: Console) -> None:
    """Print how it was measured, and the slopes with the norms at both ends."""
    ends = [int(measured["steps"].min()), int(measured["steps"].max())]
    near = ends[0] + PER - 1
    far = max(ends[1] - PER + 1, near + 1)
    console.print(Text(f"|| d loss_t / d e_j ||, {examples} test examples, at most {_OUTPUTS} outputs of each; {how}."))
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
