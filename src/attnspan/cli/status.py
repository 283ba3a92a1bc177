"""``attnspan-status``: the states of runs as a table that refreshes, or as JSON (:mod:`attnspan.sweeps.overview`)."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from attnspan.cli.console import ListParser, open_console
from attnspan.errors import InputError
from attnspan.runs.status import FAILED, FINISHED, INTERRUPTED, QUEUED, RUNNING
from attnspan.sweeps.outcomes import make_table
from attnspan.sweeps.overview import UNKNOWN, Overview, Row, read_overview
from attnspan.sweeps.progress import duration, format_loss

REFRESH_INTERVAL = 2.0  # seconds

_COLORS = {RUNNING: "cyan", FINISHED: "green", FAILED: "red", INTERRUPTED: "yellow", QUEUED: "dim", UNKNOWN: "red"}

_DISPLAY_ORDER = (RUNNING, FAILED, UNKNOWN, INTERRUPTED, QUEUED, FINISHED)
"""Runs that come first are shown if not all fit into the terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code: 2 for input errors, which are printed in one line."""
    options = _parser().parse_args(arguments)
    console = open_console(wide=True)
    paths = [Path(run) for run in options.runs]
    try:
        overview = read_overview(paths)
        if options.json:
            print(overview.as_json())
        elif console.is_terminal and overview.is_active and not options.once:
            _watch(console, paths)
        else:
            _print(console, overview)
    except InputError as error:
        print(f"attnspan-status: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


def _watch(console: Console, paths: Sequence[Path]) -> None:
    """Refresh the table until no run is running or queued."""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while (overview := read_overview(paths)).is_active:
            live.update(_screen(overview, rows=max(1, console.height - 4), width=console.width), refresh=True)
            time.sleep(REFRESH_INTERVAL)
    _print(console, overview)


def _print(console: Console, overview: Overview) -> None:
    """Print all runs: as in the display in a terminal, else in lines of any length, which other programs may read."""
    if console.is_terminal:
        console.print(_screen(overview, rows=None, width=console.width))
    else:
        console.print(_headline(overview), soft_wrap=True)
        console.print(_wide_table(overview.rows))


def _screen(overview: Overview, *, rows: int | None, width: int) -> Group:
    """Running and failed runs first, and why the latter failed last; of all that ``rows`` lines, None for all of it."""
    ordered = sorted(overview.rows, key=lambda row: _DISPLAY_ORDER.index(row.state))
    troubled = [row for row in ordered if row.state in (FAILED, UNKNOWN, INTERRUPTED)]
    names = {row.directory: _label(row, several=len({one.data for one in ordered}) > 1) for row in ordered}
    whys = [
        Text(f"{names[row.directory]}: {_details(row)}", style="dim", no_wrap=rows is not None, overflow="ellipsis")
        for row in troubled
    ]
    if rows is not None:
        whys = whys[: max(1, rows - len(ordered))]
    shown = ordered if rows is None else ordered[: max(1, rows - len(whys))]
    parts: list[Any] = [_headline(overview), _narrow_table(shown, names, width)]
    if len(ordered) > len(shown):
        parts.append(Text(f"... and {len(ordered) - len(shown)} more", style="dim"))
    return Group(*parts, *whys)


def _label(row: Row, *, several: bool) -> str:
    """Which run it is, in words; with its data if there are several."""
    seed = "" if row.seed is None else f"seed {row.seed}"
    return " ".join(filter(None, [row.arm or row.run_id, seed, row.data if several else "", row.overrides]))


def _narrow_table(rows: Sequence[Row], labels: Mapping[str, str], width: int) -> Table:
    """One line per run, as wide as ``width`` at most: the name of the run gives way."""
    names = ("state", "update", "loss", "error rate", "left")
    cells = [
        (
            row.phase or row.state,
            f"{row.update}/{row.updates}" if row.updates else "",
            format_loss(row.loss) if row.state == RUNNING else "",
            "" if row.error_rate is None else f"{row.error_rate:.3f}",
            duration(row.remaining_seconds),
        )
        for row in rows
    ]
    widths = [max(len(name), *(len(row[at]) for row in cells)) for at, name in enumerate(names)]
    room = width - sum(widths) - 2 * (len(names) + 1)
    table = Table(box=None, padding=(0, 2, 0, 0))
    label = min(max(len(labels[row.directory]) for row in rows), max(room, 8))
    table.add_column("run", no_wrap=True, overflow="ellipsis", width=label)
    for name, column in zip(names, widths, strict=True):
        table.add_column(name, no_wrap=True, justify="left" if name == "state" else "right", width=column)
    for row, (state, *others) in zip(rows, cells, strict=True):
        table.add_row(Text(labels[row.directory]), Text(state, style=_COLORS[row.state]), *map(Text, others))
    return table


def _headline(overview: Overview) -> Text:
    counts = overview.counts
    words = [f"{counts[FINISHED]} of {len(overview.rows)} runs finished"]
    words += [f"{counts[state]} {state}" for state in _DISPLAY_ORDER if state != FINISHED and counts[state]]
    if overview.remaining_seconds is not None:
        words.append(f"about {duration(overview.remaining_seconds)} left")
    return Text(", ".join(words))


def _wide_table(rows: Sequence[Row]) -> Table:
    """One line per run; long reasons take several."""
    columns = ("arm", "data", ">seed", "overrides", "state", ">update", ">loss", ">left", ">error rate", "where, why")
    cells = [
        (
            row.arm or "?",
            row.data or "?",
            "?" if row.seed is None else str(row.seed),
            row.overrides or "",
            Text(row.phase or row.state, style=_COLORS[row.state]),
            f"{row.update}/{row.updates}" if row.updates else "",
            format_loss(row.loss) if row.loss is not None else "",
            duration(row.remaining_seconds),
            f"{row.error_rate:.3f}" if row.error_rate is not None else "",
            Text(_details(row), overflow="fold"),
        )
        for row in rows
    ]
    return make_table(columns, cells)


def _details(row: Row) -> str:
    """Where the run is, or why it is not running."""
    if row.state == FINISHED:
        return "; ".join(filter(None, [row.directory, row.reason]))
    job = f"SLURM job {row.slurm_job}" if row.slurm_job else ""
    if row.state == RUNNING:
        return ", ".join(filter(None, [f"process {row.pid} on {row.host}", job]))
    if job and row.state == INTERRUPTED:  # only squeue would know
        job += " may still be there"
    return "; ".join(filter(None, [row.reason or row.state, job, row.log or row.directory]))


def _parser() -> argparse.ArgumentParser:
    parser = ListParser(
        prog="attnspan-status",
        description="Show how runs are getting on. In a terminal the table refreshes until no run is running or "
        "queued; Ctrl-C ends the display and does not affect the runs.",
    )
    parser.add_argument(
        "runs",
        nargs="*",
        default=["runs"],
        metavar="RUNS",
        help="a run directory, a directory that contains some, or @FILE that lists them (default: runs)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document, for scripts")
    parser.add_argument("--once", action="store_true", help="print once, even in a terminal")
    return parser


if __name__ == "__main__":
    sys.exit(main())
