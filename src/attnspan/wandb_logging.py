"""One run here is one W&B run. W&B mirrors; nothing is ever read back from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger


@contextmanager
def wandb_run(config: dict[str, Any], directory: Path, *, command: str) -> Iterator[list[Logger]]:
    """Loggers for the run, none with ``logger=none``; W&B is told at the end whether the run failed.

    Args:
        config: resolved.
        directory: of the run; W&B's files go to ``wandb/`` in it.
        command: what reproduces the run.
    """
    settings = config["logger"]["wandb"]
    if settings is None:
        yield []
        return
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):  # or they go to the user's home
        os.environ.setdefault(name, str(directory.absolute() / "wandb"))
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    logger = WandbLogger(
        project=settings["project"],
        entity=settings["entity"],
        offline=settings["mode"] == "offline",
        id=directory.name,
        name=f"{config['arm']} {config['data_name']} seed {config['seed']}",
        group=config["study"],
        job_type=config["arm"],
        tags=[config["arm"], config["data_name"]],
        notes=command,
        save_dir=directory.absolute(),
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
    )
    logger.log_hyperparams(config)
    code = 1
    try:
        yield [logger]
        code = 0
    finally:
        wandb.finish(exit_code=code)
