"""A run ends before it writes or measures anything if its data turns out to be damaged."""

from __future__ import annotations

from typing import Any

import lightning as L

from attnspan.data.pipeline.evaluated_split import EvaluatedSplit
from attnspan.data.pipeline.prepare import PreparedData


class DataCheck(L.Callback):
    """Ends a run whose data is damaged; the checksums of large data are still being computed when training starts.

    Args:
        prepared: the data.
    """

    def __init__(self, prepared: PreparedData | EvaluatedSplit) -> None:
        self._prepared = prepared

    def on_train_batch_end(self, *_: Any) -> None:
        """Look whether the checksums are done.

        Raises:
            InputError: the data is damaged.
        """
        self._prepared.check_integrity(wait=False)

    def on_validation_start(self, *_: Any) -> None:
        """Wait for the checksums; so below."""
        self._prepared.check_integrity(wait=True)

    def on_save_checkpoint(self, *_: Any) -> None:
        """Wait."""
        self._prepared.check_integrity(wait=True)

    def on_test_start(self, *_: Any) -> None:
        """Wait."""
        self._prepared.check_integrity(wait=True)
