"""Lightning's Trainer, as a run uses it."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.plugins.environments import LightningEnvironment

from attnspan.errors import InputError
from attnspan.training.checkpoint_io import WholeFileCheckpointIO


def make_trainer(config: dict[str, Any], **arguments: Any) -> L.Trainer:
    """Make the trainer of a run.

    Args:
        config: of the run; ``trainer`` has Lightning's own arguments.
        arguments: further ones, such as callbacks and loggers.

    Raises:
        InputError: Lightning refuses an argument.
    """
    settings = {key: value for key, value in config["trainer"].items() if key != "_target_"}
    try:
        return L.Trainer(
            **settings,
            **arguments,
            plugins=[WholeFileCheckpointIO(), LightningEnvironment()],  # the latter: our processes, not SLURM's
            check_val_every_n_epoch=None,  # val_check_interval counts updates, across the borders of epochs
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # the batches are planned already
        )
    except (TypeError, ValueError, L.pytorch.utilities.exceptions.MisconfigurationException) as error:
        raise InputError(f"trainer: {str(error).splitlines()[0]}") from error


def check_trainer(config: dict[str, Any]) -> None:
    """Make the trainer and drop it.

    Raises:
        InputError: Lightning refuses an argument.
    """
    make_trainer(config, logger=False)
