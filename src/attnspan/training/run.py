"""One run, in four steps that hand each other one value: prepare -> fit -> test -> write."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from attnspan.data.pipeline.prepare import PreparedData
from attnspan.errors import InputError, Interrupted, reason_of
from attnspan.files import read_json
from attnspan.runs.completeness import is_finished
from attnspan.runs.layout import SUMMARY
from attnspan.runs.status import FAILED, FINISHED, INTERRUPTED, RUNNING, Status, StatusWriter
from attnspan.tracking.run_logger import wandb_run
from attnspan.training.run_files import exclusive_access, remove_partial_files
from attnspan.training.steps.fit import fit
from attnspan.training.steps.prepare import Prepared, prepare
from attnspan.training.steps.test import test
from attnspan.training.steps.write import write


def execute(
    config: dict[str, Any],
    *,
    data: PreparedData,
    directory: Path,
    command: str,
    report: Callable[[Status], None],
    log: Callable[[str], None] = print,
) -> dict[str, Any] | None:
    """Carry out the run of ``config`` in ``directory``, or what is left of it.

    Args:
        config: resolved.
        data: the corpus that ``config["data"]`` describes.
        directory: of the run; an unfinished attempt in it resumes from its last checkpoint, unless ``config["rerun"]``.
        command: what reproduces the run, for the summary.
        report: takes the status of the run, at most once a second.
        log: takes lines for people.

    Returns:
        The summary, as written to ``summary.json``; None in a process that follows another one
        (:mod:`attnspan.training.distributed`).

    Raises:
        InputError: the directory holds another run, or one that another process computes; the config does not fit; the
            data turns out to be damaged.
        NotFiniteError: training diverged.
        KeyboardInterrupt: SIGINT came. All that was done is in a checkpoint; in a validation, all before the update
            that it follows.
        SystemExit: SIGTERM or SIGHUP came, likewise.
    """
    prepared = prepare(config, data=data, directory=directory, command=command, log=log)
    if prepared.rank == 0:
        return _lead(prepared, report)
    with suppress(Interrupted), prepared.stop.listening():
        test(fit(prepared, tracker=None, report=report))
    return None


def _lead(prepared: Prepared, report: Callable[[Status], None]) -> dict[str, Any]:
    """Carry out the run in its first process, which alone writes files."""
    config, directory, log = prepared.config, prepared.directory, prepared.log
    writer = StatusWriter(
        directory, arm=config["arm"], data=config["data_name"], seed=config["seed"], command=prepared.command
    )

    def say(line: str) -> None:
        writer.say(line)
        log(line)

    prepared = replace(prepared, log=say)

    def report_and_write(status: Status) -> None:
        writer.write(status)
        if status.state == RUNNING:
            report(status)

    with ExitStack() as stack:
        stack.enter_context(exclusive_access(directory))
        stack.enter_context(writer)
        if is_finished(directory) and not config["rerun"]:  # by the process that held the lock until now
            remove_partial_files(directory)  # it may have been killed before its last status
            log("finished meanwhile, skipped")
            return read_json(directory / SUMMARY)
        stack.enter_context(final_status(report_and_write, log))
        stack.enter_context(prepared.stop.listening())
        tracker = stack.enter_context(wandb_run(config, directory, command=prepared.command, log=say))
        summary = write(test(fit(prepared, tracker=tracker, report=report_and_write)))
        if tracker:  # the run is finished, whatever happens in W&B
            tracker.log_results(directory)
    return summary


@contextmanager
def final_status(report: Callable[[Status], None], log: Callable[[str], None]) -> Iterator[None]:
    """Write how the run ended."""
    began = time.monotonic()

    def end(state: str, reason: str | None = None, trace: str | None = None) -> None:
        # A full disk takes no status either, and the reason for that matters more.
        with suppress(InputError):
            report(Status(state=state, reason=reason, traceback=trace, seconds=time.monotonic() - began))

    try:
        yield
    except KeyboardInterrupt:
        end(INTERRUPTED, "by SIGINT")
        raise
    except Interrupted as interrupted:
        end(INTERRUPTED, f"by {interrupted}")
        if interrupted.number == signal.SIGINT:
            raise KeyboardInterrupt from None
        log(f"interrupted by {interrupted}; the same command resumes")
        sys.exit(128 + interrupted.number)
    except BaseException as error:
        end(FAILED, reason_of(error), traceback.format_exc())
        raise
    end(FINISHED)
