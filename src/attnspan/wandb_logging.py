"""One run here is one W&B run. W&B mirrors; nothing is ever read back from it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger

from attnspan.identity import flatten
from attnspan.stopping import Interrupted

PATIENCE = 4.0
"""Seconds that the server has to answer before the run goes on offline."""
FLUSH = 1.0
"""Seconds of logging that a SIGKILL may cost."""


@contextmanager
def wandb_run(
    config: dict[str, Any], directory: Path, *, command: str, say: Callable[[str], None]
) -> Iterator[WandbLogger | None]:
    """The run's logger, None where W&B is disabled; W&B is told at the end how the run ended.

    The W&B run has the run's own id. So a run that is resumed goes on in it online, and offline leaves one more file of
    the same run, which ``wandb sync`` puts behind the first.

    Args:
        config: resolved.
        directory: of the run; W&B's files go to ``wandb/`` in it.
        command: what reproduces the run.
        say: takes a line for people.
    """
    settings = config["logger"]["wandb"]
    if settings["mode"] == "disabled":
        yield None
        return
    of_sweep = os.environ.get("WANDB_RUN_ID") if "WANDB_SWEEP_ID" in os.environ else None
    facts = {
        "id": of_sweep or directory.name,  # the agent of a W&B sweep waits for the id that it has given
        "name": f"{config['arm']} {config['data_name']} seed {config['seed']}",
        "group": config["study"],
        "job_type": config["arm"],
        "tags": [config["arm"], config["data_name"]],
        "notes": command,
        "config": flatten(config) | {"run_id": directory.name},
    }
    with mirrored(settings, directory, say=say, **facts) as run:
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step")  # W&B's own count would differ after an interruption
        yield WandbLogger(experiment=run)


@contextmanager
def mirrored(settings: dict[str, Any], directory: Path, *, say: Callable[[str], None], **facts: Any) -> Iterator[Any]:
    """A W&B run, which is finished with the exit code that the process will have.

    Args:
        settings: ``project``, ``entity`` and ``mode``, which is offline or online.
        directory: W&B's files go to ``wandb/`` in it, and not to the user's home.
        say: takes a line for people.
        **facts: more for ``wandb.init``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with _files_below(directory.absolute() / "wandb"):
        run = _start(settings, directory.absolute(), say, facts)
        code = 1
        try:
            yield run
            code = 0
        except Interrupted as interrupted:
            code = 128 + interrupted.number
            raise
        finally:
            run.finish(exit_code=code)


def _start(settings: dict[str, Any], directory: Path, say: Callable[[str], None], facts: dict[str, Any]) -> Any:
    import wandb

    def start(mode: Literal["offline", "online"], **more: Any) -> Any:
        return wandb.init(
            project=settings["project"],
            entity=settings["entity"],
            mode=mode,
            dir=str(directory),
            settings=wandb.Settings(
                silent=True,
                console="off",
                x_disable_stats=True,
                init_timeout=PATIENCE,
                x_transaction_log_flush_interval=FLUSH,
            ),
            reinit="finish_previous",
            **more,
            **facts,
        )

    if settings["mode"] == "online":
        before = {*directory.joinpath("wandb").glob("run-*")}
        try:
            if not wandb.login(prompt=False, verify=False):  # a terminal is not asked
                raise wandb.errors.UsageError("there is no key; `wandb login` takes one")
            return start("online", resume="allow")
        except (wandb.errors.Error, OSError, ValueError) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            where = directory / "wandb"
            say(f"W&B is out of reach ({why[:200]}): logged offline; later: wandb sync {where}/offline-run-*")
            wandb.teardown()
            for begun in {*where.glob("run-*")} - before:  # holds nothing that was logged
                shutil.rmtree(begun, ignore_errors=True)
    return start("offline")


@contextmanager
def _files_below(directory: Path) -> Iterator[None]:
    """Have W&B's own files lie in ``directory``, unless the user has said where."""
    places = ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")
    ours = {name: str(directory) for name in places if name not in os.environ} | {"WANDB_SILENT": "true"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
