"""A run on Weights & Biases from its beginning to its end: where its files go, offline where online fails, exit code.

Nothing asks, and nothing is written to the user's home, unless W&B's own environment variables say so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attnspan.config.schema import OFFLINE, ONLINE
from attnspan.errors import InputError, Interrupted, NotFiniteError, is_out_of_memory, reason_of

UPDATE = "update"
"""The x-axis of all curves: updates done."""

VARIANT = "variant"
"""Config key with the arm and what else its command line sets, but for data, seed and what changes no number."""

_ANSWER = 5.0
"""Seconds that the server has to answer when a run begins. With W&B's own start and end a run is at work within 10."""
_UPLOAD = 60.0
"""Seconds that a run waits at its end for what is not uploaded yet."""


@contextmanager
def session(directory: Path, *, mode: str, run_id: str, say: Callable[[str], None], **identity: Any) -> Iterator[Any]:
    """A run on W&B, which ends with the exit code of what happens inside.

    Args:
        directory: its files go to ``wandb/`` in it.
        mode: ``offline``, or ``online``: where no key is known or no server answers, one line says so and the run is
            offline, for ``wandb sync`` to upload.
        run_id: W&B's name for it. What was logged under the same id before is continued.
        say: takes lines for people.
        identity: more that ``wandb.init`` takes: project, group, config, ...

    Raises:
        InputError: W&B cannot even begin offline.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    with _at_home_in(directory / "wandb"):
        run = _begin(directory, mode=mode, say=say, id=run_id, **identity)
        code = 1
        try:
            yield run
            code = 0
        except BaseException as error:
            code = exit_code(error)
            run.summary["failure"] = reason_of(error)
            raise
        finally:
            _end(run, code, say)


def exit_code(error: BaseException) -> int:
    """With which code a command ends whose run ended with ``error``."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, Interrupted):
        return 128 + error.number
    return 2 if isinstance(error, (InputError, NotFiniteError)) or is_out_of_memory(error) else 1  # 2: said in one line


def logged_until(directory: Path, run_id: str) -> dict[str, int]:
    """The last update of which each key was logged under ``run_id`` by earlier processes; nothing else is read.

    A run that was killed does some updates again, to the same numbers: what W&B has of them must not be logged twice.
    """
    last: dict[str, int] = {}
    for path in directory.glob(f"wandb/*-{run_id}/run-{run_id}.wandb"):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            item = json.loads(line).get("history", {}).get("item", {})
            for key in item:
                name = key.partition(".")[0]  # a table's parts are named behind dots
                last[name] = max(last.get(name, 0), int(item.get(UPDATE, 0)))
    return last


@contextmanager
def _at_home_in(directory: Path) -> Iterator[None]:
    """Have W&B keep everything in ``directory`` that it has no order of the user's for, and be silent."""
    ours = {name: str(directory) for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")}
    ours["WANDB_ERROR_REPORTING"] = "false"  # it reports its own errors, and without a network waits 20 s for that
    ours = {name: value for name, value in ours.items() if name not in os.environ}
    ours["WANDB_SILENT"] = "true"  # which is what keeps it from asking for a key, too
    names = [*ours, "WANDB_SERVICE"]
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    # Now WANDB_SERVICE is gone: whoever started us may serve W&B, and there a run that was killed is still in use.
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def _begin(directory: Path, *, mode: str, say: Callable[[str], None], **identity: Any) -> Any:
    import wandb

    def init(mode: Any) -> Any:
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,  # the runs may lie in anybody's repository; the summary has the commit of this code
            init_timeout=_ANSWER,
            finish_timeout=_UPLOAD,
            x_disable_stats=True,
            x_transaction_log_flush_interval=1,  # so much is lost if the process is killed
        )
        return wandb.init(
            **identity, mode=mode, dir=str(directory), resume="allow", reinit="create_new", settings=settings
        )

    if mode == ONLINE:
        before = set(directory.glob("wandb/run-*"))
        try:
            run = init(ONLINE)
        except Exception as error:  # no key, one that is none, no network, a server's refusal: of many classes
            reason = reason_of(error).rstrip(".")
            say(f"W&B: {reason}; goes on offline, for wandb sync {directory}/wandb/offline-run-* to upload")
            wandb.teardown()
            for empty in set(directory.glob("wandb/run-*")) - before:
                shutil.rmtree(empty, ignore_errors=True)
        else:
            say(f"W&B: {run.url}")
            return run
    try:
        return init(OFFLINE)
    except Exception as error:
        raise InputError(f"W&B cannot begin ({reason_of(error)}); logger.wandb.mode=disabled goes without") from error


def _end(run: Any, code: int, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    run.finish(exit_code=code)
    if not run.offline and time.monotonic() - began >= _UPLOAD:
        say(f"W&B: not all is uploaded; wandb sync --include-online {Path(run.dir).parent} does the rest")
