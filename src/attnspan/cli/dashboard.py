"""``attnspan-dashboard``: the workspace and the report of a study on W&B, as code.

What they draw is what :mod:`attnspan.tracking.run_logger` and :mod:`attnspan.tracking.study` log. ``--dry-run`` writes
them as JSON and needs neither key nor network; without it they are saved, and their addresses printed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnspan.cli.console import ListParser
from attnspan.errors import InputError
from attnspan.tracking.dashboards import find_study, save, write_json

if TYPE_CHECKING:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code: 2 for input that cannot be used, said in one line."""
    options = _parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        runs = find_study([Path(run) for run in options.runs])
        project = options.project or os.environ.get("WANDB_PROJECT", "attnspan")
        if options.dry_run:
            entity = options.entity or os.environ.get("WANDB_ENTITY", "entity")
            write_json(Path(options.out), runs, project=project, entity=entity)
        else:
            save(runs, project=project, entity=options.entity or os.environ.get("WANDB_ENTITY"))
    except InputError as error:
        print(f"attnspan-dashboard: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = ListParser(
        prog="attnspan-dashboard",
        fromfile_prefix_chars="@",
        description="Build the W&B workspace and report of a study, and save them, or write their JSON.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run directory, a directory above some, or @FILE that lists them"
    )
    parser.add_argument("--project", help="on W&B (default: $WANDB_PROJECT, else attnspan)")
    parser.add_argument("--entity", help="whose project (default: $WANDB_ENTITY, else your own)")
    parser.add_argument("--dry-run", action="store_true", help="write their JSON, and save nothing")
    parser.add_argument("--out", default=".", metavar="DIR", help="where --dry-run writes (default: here)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
