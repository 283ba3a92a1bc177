"""``python -m attnspan.cli.job DIRECTORY``: one run of a sweep, as it was when the sweep was launched."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from attnspan.cli.single_run import run, run_command
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import JOB, OWN_CODE
from attnspan.runs.own_code import use_kept_code
from attnspan.runs.provenance import code_state
from attnspan.sweeps.job import read_job, remove_job


def main() -> None:
    """Run the command."""
    run_command(lambda: _run(Path(sys.argv[1])))


def _run(directory: Path) -> None:
    job = read_job(directory) if (directory / JOB).exists() or not is_finished(directory) else None
    if job is not None and (job.config["rerun"] or not is_finished(directory)):
        now = code_state()
        if now["code"] != job.code.get("code"):
            print(f"the code changed since this sweep was launched: from {_words(job.code)} to {_words(now)}")
        if changed := use_kept_code(job.config, directory):
            print(f"changed since this sweep was launched: {', '.join(changed)}; the run uses {directory / OWN_CODE}")
        run(dict(job.config), job.command, data_fingerprint=job.data_fingerprint)
    else:  # another sweep's process has finished the run
        print(f"{directory}: finished before, skipped")
    if is_finished(directory):
        remove_job(directory)


def _words(code: Mapping[str, str | None]) -> str:
    return f"{code.get('code')} (commit {code.get('git_commit') or 'unknown'})"


if __name__ == "__main__":
    main()
