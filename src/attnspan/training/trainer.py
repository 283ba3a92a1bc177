"""Lightning's Trainer, as a run uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.plugins.environments import LightningEnvironment

from attnspan.config.argument_kinds import check_argument_kinds
from attnspan.errors import InputError, SettingError
from attnspan.files import write_atomically
from attnspan.runs.checkpoint_file import checkpoint_bytes
from attnspan.runs.layout import PREVIOUS


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
        check_argument_kinds(L.Trainer, settings)
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
    except SettingError as error:
        raise InputError(f"trainer.{error}") from None
    except (TypeError, ValueError, L.pytorch.utilities.exceptions.MisconfigurationException) as error:
        raise InputError(f"trainer: {str(error).splitlines()[0]}") from error


def check_trainer(config: dict[str, Any]) -> None:
    """Make the trainer and drop it.

    Raises:
        InputError: Lightning refuses an argument.
    """
    make_trainer(config, logger=False)


class WholeFileCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all; the one before it stays as ``previous.ckpt``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            InputError: the directory cannot be written (read-only, full).
        """
        last = Path(path)
        write_atomically(last, checkpoint_bytes(checkpoint), keep_old_as=last.with_name(Path(PREVIOUS).name))
