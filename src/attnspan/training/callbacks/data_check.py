"""A run ends before it writes anything if its data turns out to be damaged."""

from __future__ import annotations

from typing import Any

import lightning as L

from attnspan.data.pipeline.prepare import PreparedData


class WholeData(L.Callback):
    """Ends a run on data that turns out to be damaged, before it has written or measured anything.

    Args:
        prepared: the corpus, whose files may still be being read through.
    """

    def __init__(self, prepared: PreparedData) -> None:
        self._prepared = prepared

    def on_train_batch_end(self, *_: Any) -> None:
        """See whether that is done.

        Raises:
            InputError: there is damage; so below.
        """
        self._prepared.check_integrity(wait=False)

    def on_validation_start(self, *_: Any) -> None:
        """Wait until it is done."""
        self._prepared.check_integrity(wait=True)

    def on_save_checkpoint(self, *_: Any) -> None:
        """Wait until it is done."""
        self._prepared.check_integrity(wait=True)

    def on_test_start(self, *_: Any) -> None:
        """Wait until it is done."""
        self._prepared.check_integrity(wait=True)
