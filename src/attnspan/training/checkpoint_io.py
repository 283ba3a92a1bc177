"""How Lightning's checkpoints reach the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.plugins import TorchCheckpointIO

from attnspan.files import write_atomically
from attnspan.runs.checkpoint_file import checkpoint_bytes
from attnspan.runs.layout import PREVIOUS


class WholeFileCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all; the one before it stays as ``previous.ckpt``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            InputError: the directory cannot be written (read-only, full).
        """
        last = Path(path)
        write_atomically(last, checkpoint_bytes(checkpoint), keep_old_as=last.with_name(Path(PREVIOUS).name))
