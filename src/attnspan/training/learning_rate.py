"""How the learning rate moves with the updates."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_decay(optimizer: Optimizer, *, max_steps: int, warmup_steps: int, final_ratio: float) -> LambdaLR:
    """Rise linearly to the full rate in ``warmup_steps`` updates, then fall linearly to ``final_ratio`` of it.

    Args:
        optimizer: whose rate is scaled.
        max_steps: updates of the whole training.
        warmup_steps: updates until the full rate.
        final_ratio: share of the full rate that is left at ``max_steps``.
    """

    def scale(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        gone = (step - warmup_steps) / max(1, max_steps - warmup_steps)
        return 1.0 - (1.0 - final_ratio) * min(1.0, gone)

    return LambdaLR(optimizer, scale)
