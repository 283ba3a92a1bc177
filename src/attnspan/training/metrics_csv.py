"""``metrics.csv``: what was logged in training and validation, which can go back to where a checkpoint was."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import CSVLogger

from attnspan.files import cannot_write, write_text
from attnspan.training.distributed import rank


class Curves(CSVLogger):
    """``metrics.csv``, which can be put back to what it was at a checkpoint."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, name="", version="")

    def content(self) -> str:
        """All that is in the file so far."""
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

    def keep(self) -> None:
        """Have all of the file on the disk, so that a power cut cannot take any of it.

        Raises:
            InputError: the file cannot be written.
        """
        self.put_back(self.content())

    def put_back(self, content: str) -> None:
        """Make the file hold ``content``, and go on behind it."""
        if rank() != 0:
            return
        path = Path(self.experiment.metrics_file_path)
        if content:
            write_text(path, content)
            self.experiment.metrics_keys = content.splitlines()[0].split(",")
        else:
            path.unlink(missing_ok=True)
