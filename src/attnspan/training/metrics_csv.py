"""``metrics.csv``: what was logged in training and validation, restored with a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import CSVLogger

from attnspan.files import cannot_write, write_text
from attnspan.training.distributed import rank


class MetricsCsv(CSVLogger):
    """The logger that writes ``metrics.csv``."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, name="", version="")

    def content(self) -> str:
        """All that is in the file so far; empty in a process that writes none."""
        if rank() != 0:
            return ""
        path = Path(self.experiment.metrics_file_path)
        return path.read_bytes().decode() if path.exists() else ""

    def save(self) -> None:
        """Write what was logged since the last time.

        Raises:
            InputError: the file cannot be written.
        """
        try:
            super().save()
        except OSError as error:
            raise cannot_write(Path(self.experiment.metrics_file_path), error) from error

    def make_durable(self) -> None:
        """Write the file anew, through to the disk, so that a power cut cannot take any of it.

        Raises:
            InputError: the file cannot be written.
        """
        self.restore(self.content())

    def restore(self, content: str) -> None:
        """Make the file hold ``content``, and append to it from now on."""
        if rank() != 0:
            return
        path = Path(self.experiment.metrics_file_path)
        if content:
            write_text(path, content)
            self.experiment.metrics_keys = content.splitlines()[0].split(",")
        else:
            path.unlink(missing_ok=True)


class MetricsCsvCheckpoint(L.Callback):
    """Puts the content of ``metrics.csv`` into every checkpoint, and restores it from there.

    Args:
        metrics_csv: the logger.
    """

    def __init__(self, metrics_csv: MetricsCsv) -> None:
        self._metrics_csv = metrics_csv

    def state_dict(self) -> dict[str, Any]:
        """The content of the file."""
        return {"content": self._metrics_csv.content()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the content of the file."""
        self._metrics_csv.restore(state_dict["content"])
