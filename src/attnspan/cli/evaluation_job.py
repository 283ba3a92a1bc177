"""``python -m attnspan.cli.evaluation_job DIRECTORY``: one evaluation, as it was when it was launched."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from attnspan.cli.single_run import run_command
from attnspan.config.threads import thread_environment
from attnspan.errors import InputError, NotFiniteError, is_out_of_memory, reason_of
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import JOB, OWN_CODE, run_of
from attnspan.runs.own_code import use_kept_code
from attnspan.runs.summary import describe_scores
from attnspan.sweeps.job import Job, remove_job


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--trusted", action="append", default=[])
    options = parser.parse_args()
    run_command(lambda: _run(options.directory, options.trusted), name="attnspan-evaluate")


def _run(directory: Path, trusted: Sequence[str]) -> None:
    from attnspan.sweeps.evaluations import read_evaluation_job

    pending = (directory / JOB).exists() or not is_finished(directory)
    job = read_evaluation_job(directory, trusted) if pending else None
    if job is not None and (job.config["rerun"] or not is_finished(directory)):
        if changed := use_kept_code(job.config, directory):
            print(f"changed since this was launched: {', '.join(changed)}; the copy in {directory / OWN_CODE} is used")
        summary = _evaluate(job, trusted)
        if summary is None:
            return
        print(f"{job.label}: {describe_scores(summary['test'])}")
    else:  # another process has finished the evaluation
        print(f"{directory}: finished before, skipped")
    if is_finished(directory):
        remove_job(directory)


def _evaluate(job: Job, trusted: Sequence[str]) -> dict[str, Any] | None:
    os.environ |= thread_environment(job.config["threads"])  # before the libraries that read it are loaded
    from attnspan.evaluation.prepared_test import evaluated_examples
    from attnspan.sweeps.progress import ProgressDisplay
    from attnspan.training.evaluate import evaluate

    split = evaluated_examples(dict(job.config), run=run_of(job.directory)).prepare()
    with ProgressDisplay(console=Console()) as display:
        try:
            return evaluate(
                dict(job.config),
                split=split,
                directory=job.directory,
                command=job.command,
                report=lambda status: display.update(job.label, status),
                log=lambda line: display.log(f"{job.label}: {line}"),
                trusted=trusted,
            )
        except NotFiniteError as error:
            raise InputError(f"{job.label}: {error}") from error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(f"{job.label}: {reason_of(error)} ({job.directory})") from error


if __name__ == "__main__":
    main()
