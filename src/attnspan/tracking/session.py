"""A W&B run from its start to its end: where its files go, offline mode where online fails, its exit code.

W&B never prompts, and writes nothing to the user's home, unless its own environment variables say so.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from attnspan.config.schema import OFFLINE, ONLINE
from attnspan.errors import InputError, Interrupted, NotFiniteError, is_out_of_memory, reason_of
from attnspan.runs.child_process import child_environment

UPDATE = "update"
"""The x axis of all curves: the number of updates."""
TEST_BY = "test_by_"
"""The sections of the metrics of the test, one row per bin, begin with it; then comes the length that bins are of."""

VARIANT = "variant"
"""Config key: the arm, and what its command line sets except data, seed and keys that change no number."""

_INIT_TIMEOUT = 5.0
"""Seconds that the server has to answer when a run starts, so that training starts within 10 seconds."""
_FINISH_TIMEOUT = 8.0
"""Seconds that a run waits at its end for pending uploads, before it looks whether there is a server at all."""
_UPLOAD_TIMEOUT = 60.0
"""Seconds that the upload of the rest may take where there is one."""


@contextmanager
def session(
    directory: Path, *, mode: str, run_id: str, log: Callable[[str], None], replaces: bool = False, **settings: Any
) -> Iterator[Any]:
    """A W&B run, which ends with the exit code of the block.

    Args:
        directory: W&B's files go to its subdirectory ``wandb/``.
        mode: ``offline`` or ``online``. Online, if there is no key or the server does not answer, one line says so and
            the run is offline, to be uploaded by ``wandb sync``.
        run_id: W&B's id. A run that was logged under the same id before is continued: the server keeps one row for
            each step. So whoever resumes a run logs again, with the same steps, what was logged before.
        log: takes lines for people.
        replaces: the rows replace those of such a run; otherwise the server's rows stay, and only new ones are sent.
        settings: further arguments of ``wandb.init``: project, group, config, ...

    Raises:
        InputError: W&B cannot start, not even offline.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    with _environment(directory / "wandb"):
        run = _start(directory, mode=mode, log=log, replaces=replaces, id=run_id, **settings)
        code = 1
        try:
            yield run
            code = 0
        except BaseException as error:
            code = exit_code(error)
            run.summary["failure"] = reason_of(error)
            raise
        finally:
            _finish(run, code, log)


def exit_code(error: BaseException) -> int:
    """The exit code of a command whose run ended with ``error``."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, Interrupted):
        return 128 + error.number
    of_one_line = isinstance(error, (InputError, NotFiniteError)) or is_out_of_memory(error)
    return 2 if of_one_line else 1


def earlier_rows(directory: Path, run_id: str) -> list[dict[str, Any]]:
    """The rows that earlier processes logged under ``run_id``, the oldest first, from W&B's files in ``directory``.

    Nothing else is read from them. Rows that a process had not written when it was killed are lost.
    """
    rows = []
    for path in sorted(directory.glob(f"wandb/*-{run_id}/run-{run_id}.wandb"), key=lambda path: path.stat().st_mtime):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment())
        rows += [row for line in done.stdout.splitlines() if (row := json.loads(line).get("history", {}).get("item"))]
    return rows


@contextmanager
def _environment(directory: Path) -> Iterator[None]:
    """Make W&B silent, and keep its files in ``directory`` unless the user has set other places."""
    ours = {name: str(directory) for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")}
    ours["WANDB_ERROR_REPORTING"] = "false"  # without a network it waits 20 s to report its own errors
    ours = {name: value for name, value in ours.items() if not os.environ.get(name)}
    ours["WANDB_SILENT"] = "true"  # this also stops it from prompting for a key
    empty = [name for name, value in os.environ.items() if name.startswith("WANDB_") and not value]  # as if not set
    names = [*ours, "WANDB_SERVICE", "WANDB_RESUME", *empty]
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    # WANDB_SERVICE is unset: in the W&B service of a parent process, a run that was killed would still be in use.
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def _start(directory: Path, *, mode: str, log: Callable[[str], None], replaces: bool, **settings: Any) -> Any:
    import wandb

    def init(mode: Any) -> Any:
        behaviour = wandb.Settings(
            silent=True, console="off", x_disable_stats=True,
            init_timeout=_INIT_TIMEOUT, finish_timeout=_FINISH_TIMEOUT, finish_timeout_raises=True,
            disable_git=True,  # runs may lie in an unrelated repository; the summary has the commit of this code
            x_transaction_log_flush_interval=1,  # seconds of data that are lost if the process is killed
        )  # fmt: skip
        # Online, the server says what it has. `wandb sync` has no use for it: it sends all rows, with their steps.
        resume: Any = "allow" if mode == ONLINE and not replaces else None
        return wandb.init(
            mode=mode, dir=str(directory), resume=resume, reinit="create_new", settings=behaviour, **settings
        )

    reason = ""
    if mode == ONLINE:
        before = set(directory.glob("wandb/run-*"))
        try:
            run = init(ONLINE)
        except Exception as error:  # a missing or invalid key, no network, a refusal: many classes
            reason = _reason(error).rstrip(".")
            wandb.teardown()
            for empty in set(directory.glob("wandb/run-*")) - before:
                shutil.rmtree(empty, ignore_errors=True)
        else:
            log(f"W&B: {run.url}")
            return run
    try:
        run = init(OFFLINE)
    except Exception as error:
        raise InputError(
            f"W&B cannot start ({_reason(error)}); to run without it, set logger.wandb.mode=disabled"
        ) from error
    if reason:
        log(f"W&B: {reason}; the run is logged offline, upload it with {shlex.join(_sync_command(run))}")
    return run


def _reason(error: Exception) -> str:
    """Why W&B does not start; a setting that it refuses is named as the environment has it."""
    if not isinstance(error, ValidationError):
        return reason_of(error)
    found = []
    for one in error.errors():
        setting, value = ".".join(map(str, one["loc"])), one["input"]
        variables = [name for name in os.environ if name.startswith("WANDB_") and os.environ[name] == str(value)]
        likely = [name for name in variables if name.removeprefix("WANDB_").lower() in setting] or variables
        found.append(f"{likely[0] if likely else setting}={value}: {one['msg']}")
    return "; ".join(found)


def forget_logged(directory: Path, run_id: str) -> None:
    """Remove what earlier processes logged under ``run_id``, for a run that is computed again."""
    for path in directory.glob(f"wandb/*-{run_id}"):
        shutil.rmtree(path, ignore_errors=True)


def _finish(run: Any, code: int, log: Callable[[str], None]) -> None:
    try:
        run.finish(exit_code=code)
    except TimeoutError:
        if not run.offline and not _upload(run):
            log(f"W&B: the upload is incomplete; finish it with {shlex.join(_sync_command(run))}")


def _sync_command(run: Any) -> list[str]:
    """What uploads all of a run, also where a part was uploaded before."""
    return ["wandb", "sync", *([] if run.offline else ["--include-online"]), str(Path(run.dir).parent)]


def _upload(run: Any) -> bool:
    """Upload the rest of a run, if there is a server; returns whether all has arrived."""
    try:
        # Any answer will do: the key is not sent, so the server refuses us.
        urllib.request.urlopen(f"{run.settings.base_url}/graphql", data=b"{}", timeout=1).close()
    except urllib.error.HTTPError as error:
        if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return False
    except (OSError, HTTPException):
        return False
    try:
        done = subprocess.run(
            [sys.executable, "-m", *_sync_command(run)],
            capture_output=True,
            timeout=_UPLOAD_TIMEOUT,
            check=False,
            env=child_environment(),
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
