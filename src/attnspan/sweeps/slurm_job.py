"""What SLURM starts for one run of a sweep: a process that watches over the run's own, and has it put back if need be.

SLURM tells a job by signals that its time is up. ``SIGUSR1`` and ``SIGUSR2`` come some time before, ``SIGTERM`` shortly
before its end, be it preempted, put back or cancelled, and all of them come to every process of the job.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from attnspan.errors import InputError, UnderWayError
from attnspan.runs.completeness import is_finished
from attnspan.runs.status import FINISHED, INTERRUPTED, RUNNING, current_status, read_status
from attnspan.sweeps.processes import ELSEWHERE, Job, keep_starting, start, stop, wait

_EARLY = (signal.SIGUSR1, signal.SIGUSR2)
_POLL = 0.2  # seconds


class RunJob:
    """Carries out a run in a process of its own, in the job that submitit made for it.

    Asked to stop, the run writes a checkpoint, and the job is put back into SLURM's queue, from where it goes on;
    unless SLURM takes it away anyhow, to put it back by itself or to cancel it.
    """

    def __call__(self, job: Job, threads: int) -> None:
        """Run the job.

        Raises:
            SystemExit: it did not finish.
        """
        from submitit import JobEnvironment

        job = replace(job, slurm_job=own_name())  # the one that came is what submitit hands over again next time
        put_back: Any = signal.getsignal(getattr(signal, f"SIG{JobEnvironment.USR_SIG}"))
        asked: list[int] = []
        if not int(os.environ.get("SLURM_RESTART_COUNT", 0)):
            _refuse_what_is_under_way(job)
        elif not is_finished(job.directory):
            job.command = [*job.command, "rerun=false"]  # it was begun anew already, and now goes on
        # The run hears of it through us: blocked here, these signals are blocked in its process for good.
        signal.pthread_sigmask(signal.SIG_BLOCK, _EARLY)
        for number in (*_EARLY, signal.SIGTERM):
            signal.signal(number, lambda number, frame: asked.append(number))
        started = start(job, threads)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _EARLY)
        if not started or job.process is None:
            sys.exit(1)
        while not asked and job.process.poll() is None:
            time.sleep(_POLL)
            keep_starting(job)
        if job.process.poll() is None:
            stop([job])
            if not is_finished(job.directory):
                _put_back(job, asked[0], put_back)
        else:
            wait(job)
        if job.outcome != FINISHED and not is_finished(job.directory):
            sys.exit(UnderWayError.EXIT_CODE if job.outcome == ELSEWHERE else 1)

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit is to start next time: the same, for the run's checkpoint lies in its directory."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


def own_name() -> str | None:
    """The id of the job of SLURM's in which this process is, as ``squeue`` writes it; None if it is in none."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def _refuse_what_is_under_way(job: Job) -> None:
    """Leave a run to the process that is at work on it, before its status is overwritten."""
    with suppress(InputError):
        if current_status(job.directory).state == RUNNING:
            sys.exit(UnderWayError.EXIT_CODE)


def _put_back(job: Job, number: int, put_back: Callable[[int, Any], None]) -> None:
    """Leave the job, for SLURM to start it again.

    Raises:
        SystemExit: always, but for what submitit raises.
    """
    from submitit.core.utils import UncompletedJobError

    print(f"{job.label}: stopped by {signal.Signals(number).name}, with a checkpoint", flush=True)
    if number == signal.SIGTERM and not _may_stay():
        sys.exit(128 + number)
    try:
        put_back(number, None)
    except UncompletedJobError as error:  # it has been too often
        status = read_status(job.directory) or job.status(INTERRUPTED)
        more = "The same command goes on; more hydra.launcher.timeout_min or hydra.launcher.max_num_timeout may help"
        replace(status, state=INTERRUPTED, phase="", remaining=None, reason=f"{error} {more}").write(job.directory)
        raise


def _may_stay() -> bool:
    """Whether SLURM still counts the job as running, and not as one that it takes away."""
    asked = subprocess.run(
        ["scontrol", "--oneliner", "show", "job", os.environ["SLURM_JOB_ID"]],
        capture_output=True,
        text=True,
        check=False,
    )
    return " JobState=RUNNING " in asked.stdout
