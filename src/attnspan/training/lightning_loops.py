"""The one place that depends on how Lightning counts: private loop state, which another minor version may change.

Lightning has no hook between two updates: when a batch starts, it already counts as fetched. A checkpoint that is
written then would skip that batch after resuming. So the counters in the checkpoint are set back by one batch.
"""

from __future__ import annotations

from typing import Any

import lightning as L

TESTED_WITH = "2.6"
"""Minor version of Lightning whose loops this was written for; pyproject.toml pins it."""


def is_followed_by_validation(trainer: L.Trainer) -> bool:
    """Whether a validation comes after the update of the batch that was just fetched."""
    every = trainer.val_check_batch
    assert every is not None
    return -trainer.fit_loop.epoch_loop.batch_progress.total.ready % every < trainer.accumulate_grad_batches


def rewind_fetched_batch(trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
    """Set the counters in ``checkpoint`` back to before the batch that was just fetched.

    Args:
        trainer: that made the checkpoint at the start of a batch.
        checkpoint: Lightning's, changed in place.
    """
    loops = checkpoint["loops"]["fit_loop"]
    progress = loops["epoch_loop.batch_progress"]
    progress["is_last_batch"] = False
    progress["total"]["ready"] -= 1
    progress["current"]["ready"] -= 1
    position = {"epoch": trainer.current_epoch, "batch": progress["current"]["ready"]}
    loops["state_dict"]["combined_loader"] = [position]
    if progress["total"]["ready"] % trainer.val_check_batch == 0:
        # On resuming, Lightning finds that a validation is due, sees that it was done, and counts the update again.
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
