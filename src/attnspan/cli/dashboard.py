"""``attnspan-dashboard``: the workspaces and the W&B report of a study, as code.

They draw what :mod:`attnspan.tracking.run_logger` and :mod:`attnspan.tracking.study` log. ``--dry-run`` writes them as
JSON, without key or network; otherwise they are saved on W&B, and their addresses printed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from attnspan.cli.console import ListParser
from attnspan.errors import InputError
from attnspan.tracking.dashboards import find_study, save, write_json


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; input that cannot be used is a one-line error with code 2."""
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
        description="Build the W&B workspaces and the W&B report of a study, and save them on W&B or as JSON files.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run directory, a directory above some, or @FILE that lists them"
    )
    parser.add_argument("--project", help="the W&B project (default: $WANDB_PROJECT, else attnspan)")
    parser.add_argument("--entity", help="the owner of the project (default: $WANDB_ENTITY, else your own)")
    parser.add_argument("--dry-run", action="store_true", help="write JSON files and save nothing on W&B")
    parser.add_argument("--out", default=".", metavar="DIR", help="directory of the JSON files (default: .)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
