"""``attnspan-dashboard``: the workspaces and the W&B report of a study, as code.

They draw what :mod:`attnspan.tracking.run_logger` and :mod:`attnspan.tracking.study` log. ``--dry-run`` writes them as
JSON, without key or network; otherwise they are saved on W&B, and their addresses printed.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from attnspan.cli.console import ListParser, command
from attnspan.tracking.study import find_study


@command("attnspan-dashboard")
def main(arguments: list[str]) -> None:
    """Find the study of the runs, and write or save its dashboards."""
    options = _parser().parse_args(arguments)
    runs = find_study([Path(run) for run in options.runs])
    from attnspan.tracking.dashboards import save, write_json  # it loads W&B, which takes a second

    project = options.project or os.environ.get("WANDB_PROJECT", "attnspan")
    entity = options.entity or os.environ.get("WANDB_ENTITY")
    if options.dry_run:
        write_json(Path(options.out), runs, project=project, entity=entity or "entity")
    else:
        save(runs, project=project, entity=entity)


def _parser() -> argparse.ArgumentParser:
    parser = ListParser(
        prog="attnspan-dashboard",
        description="Build the W&B workspaces and the W&B report of a study, and save them on W&B or as JSON files.",
    )
    parser.add_runs()
    parser.add_argument("--project", help="the W&B project (default: $WANDB_PROJECT, else attnspan)")
    parser.add_argument("--entity", help="the owner of the project (default: $WANDB_ENTITY, else your own)")
    parser.add_argument("--dry-run", action="store_true", help="write JSON files and save nothing on W&B")
    parser.add_argument("--out", default=".", metavar="DIR", help="directory of the JSON files (default: .)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
