"""The SLURM job of one run: it watches the run's process, and requeues itself when the run is stopped too early.

SLURM announces the end of a job with signals to all of its processes: ``SIGUSR1`` and ``SIGUSR2`` some time before it,
``SIGTERM`` shortly before it, whether the job is preempted, requeued or cancelled.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from attnspan.errors import AlreadyRunningError
from attnspan.runs.completeness import is_finished
from attnspan.runs.status import FINISHED, INTERRUPTED, read_status
from attnspan.sweeps.job import RUNNING_ELSEWHERE, Job
from attnspan.sweeps.job_process import renew_start_heartbeat, start, stop, wait
from attnspan.sweeps.queue import is_running
from attnspan.sweeps.slurm.commands import job_record

_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
_POLL_INTERVAL = 0.2  # seconds


class RunJob:
    """Runs a job of the sweep in its own process; submitit calls it inside the SLURM job.

    When SLURM announces the end, the run writes a checkpoint, and the job is requeued and resumes from it; unless SLURM
    itself requeues or cancels the job.
    """

    def __call__(self, job: Job, threads: int) -> None:
        """Run the job; raises SystemExit if the run did not finish."""
        from submitit import JobEnvironment

        job = replace(job, slurm_job=own_id())  # a copy: submitit hands the original over again after a requeue
        requeue: Any = signal.getsignal(getattr(signal, f"SIG{JobEnvironment.USR_SIG}"))
        received: list[int] = []
        if not int(os.environ.get("SLURM_RESTART_COUNT", 0)):
            if is_running(job):  # in another process, whose status must stay
                sys.exit(AlreadyRunningError.EXIT_CODE)
        elif not is_finished(job.directory):
            # A rerun was begun before the requeue, and is resumed now.
            job.config = {**job.config, "rerun": False}
        # The run is told by this process. Signals that are blocked now stay blocked in the run's process.
        signal.pthread_sigmask(signal.SIG_BLOCK, _WARNINGS)
        for number in (*_WARNINGS, signal.SIGTERM):
            signal.signal(number, lambda number, frame: received.append(number))
        started = start(job, threads)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WARNINGS)
        if not started or job.process is None:
            sys.exit(1)
        while not received and job.process.poll() is None:
            time.sleep(_POLL_INTERVAL)
            renew_start_heartbeat(job)
        if job.process.poll() is None:
            stop([job])
            if not is_finished(job.directory):
                _requeue(job, received[0], requeue)
        else:
            wait(job)
        if job.outcome != FINISHED and not is_finished(job.directory):
            sys.exit(AlreadyRunningError.EXIT_CODE if job.outcome == RUNNING_ELSEWHERE else 1)

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit starts after a requeue: the same call, since the run's checkpoint is in its directory."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


def own_id() -> str | None:
    """The id of the SLURM job of this process, as ``squeue`` prints it; None outside of SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def _requeue(job: Job, number: int, requeue: Callable[[int, Any], None]) -> None:
    """End this process, and have SLURM start the job again unless SLURM is ending it itself."""
    from submitit.core.utils import UncompletedJobError

    print(f"{job.label}: stopped by {signal.Signals(number).name}, with a checkpoint", flush=True)
    if number == signal.SIGTERM and job_record(os.environ["SLURM_JOB_ID"]).get("JobState") != "RUNNING":
        sys.exit(128 + number)
    try:
        requeue(number, None)
    except UncompletedJobError as error:  # requeued too often
        status = read_status(job.directory) or job.status(INTERRUPTED)
        hint = "The same command resumes it; more hydra.launcher.timeout_min or hydra.launcher.max_num_timeout may help"
        status.ended(INTERRUPTED, f"{error} {hint}").write(job.directory)
        raise
