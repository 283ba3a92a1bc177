"""How the learning rate moves with the updates."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from attnspan.errors import SettingError


class WarmupConstantDecay(LRScheduler):
    """Rise to the full rate, keep it until :meth:`start_decay`, then fall.

    No number of updates stands in it, so that training may last as long as it gains. With W ``warmup_steps``, a decay
    of D updates that begins after update t0, and f ``final_ratio``, update t = 0, 1, ... has the full rate times::

        (t + 1) / W                            for t < W
        1                                      until t0
        1 - (1 - f) min(1, (t - t0) / D)       from t0 on

    Hu et al. (2024), MiniCPM, section 4, call it warmup-stable-decay.

    Args:
        optimizer: whose rate is scaled.
        warmup_steps: updates until the full rate.
        decay_share: share of all updates that the decay takes: what is learned at the full rate is followed by
            ``decay_share / (1 - decay_share)`` times as many updates at a falling one. 0: no decay.
        final_ratio: share of the full rate that is left at the end of the decay.

    Raises:
        SettingError: ``warmup_steps`` or ``final_ratio`` is below 0, or ``decay_share`` is not a share.
    """

    def __init__(self, optimizer: Optimizer, *, warmup_steps: int, decay_share: float, final_ratio: float) -> None:
        if warmup_steps < 0:
            raise SettingError("warmup_steps", f"must be at least 0, not {warmup_steps}")
        if not 0 <= decay_share < 1:
            raise SettingError("decay_share", f"must be at least 0 and less than 1, not {decay_share}")
        if final_ratio < 0:
            raise SettingError("final_ratio", f"must be at least 0, not {final_ratio}")
        self.warmup_steps = warmup_steps
        self.decay_share = decay_share
        self.final_ratio = final_ratio
        self.decay_start: int | None = None
        """Updates before the decay; None while it has not begun."""
        self.decay_steps = 0
        super().__init__(optimizer)

    def decay_after(self, updates: int) -> float:
        """Updates that a decay takes which begins after ``updates``."""
        return updates * self.decay_share / (1 - self.decay_share)

    def start_decay(self, steps: int) -> None:
        """Fall from the next update on, for ``steps`` updates."""
        self.decay_start, self.decay_steps = self.last_epoch, steps

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each group for the next update."""
        return [rate * self._scale(self.last_epoch) for rate in self.base_lrs]

    def _scale(self, step: int) -> float:
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if self.decay_start is None or not self.decay_steps:
            return warmup
        gone = (step - self.decay_start) / self.decay_steps
        return warmup * (1.0 - (1.0 - self.final_ratio) * min(1.0, gone))
