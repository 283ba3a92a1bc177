"""Training ends when validation stops improving, so that every arm is compared after it has learned what it can."""

from __future__ import annotations

import math
from typing import Any

import lightning as L

from attnspan.runs.status import MAX_STEPS, PLATEAU
from attnspan.training.learning_rate import WarmupConstantDecay


class Plateau(L.Callback):
    """Starts the decay of the learning rate at a plateau of validation, and ends training after it.

    A validation gains if it lowers the best value so far of the loss, or of the checkpoint selection metric, by
    ``minimum_gain`` of that value and by ``minimum_difference``. After ``patience`` validations in a row without a gain
    the learning rate decays, and training ends with the decay. The decay begins before a plateau where otherwise
    ``trainer.max_steps`` would cut it off; then it takes all updates that are left.

    All decisions fall at validations, from values that every process knows, and are part of a checkpoint.

    Args:
        selection_metric: chooses the checkpoint; see :class:`attnspan.training.callbacks.checkpoints.Checkpoints`.
        patience: validations; None to train ``trainer.max_steps`` updates whatever they gain.
        minimum_gain: share of the best value.
        minimum_difference: in the units of the metric: nats per token, or a share of sequences.
    """

    def __init__(
        self, *, selection_metric: str, patience: int | None, minimum_gain: float, minimum_difference: float
    ) -> None:
        self._metrics = tuple(dict.fromkeys(["validation/loss", f"validation/{selection_metric}"]))
        self._patience, self._gain, self._difference = patience, minimum_gain, minimum_difference
        self._best = dict.fromkeys(self._metrics, math.inf)
        self._without_gain = 0
        self._last_gain: int | None = None
        self._losses: list[list[float]] = []
        self.ends_at: int | None = None
        """Updates after which training ends; None while that is not decided."""
        self.plateau_update: int | None = None
        """Updates up to the last gain before the decay; None while there is no plateau."""
        self.decay_update: int | None = None
        """Updates at the full learning rate; None while it has not decayed."""

    @property
    def may_end_earlier(self) -> bool:
        """Whether training may end before ``trainer.max_steps``, and it is not decided when."""
        return self.ends_at is None and self._patience is not None

    @property
    def ended_by(self) -> str:
        """Why training ended: ``plateau`` or ``max_steps``."""
        return MAX_STEPS if self.plateau_update is None else PLATEAU

    @property
    def last_doubling_gain(self) -> float | None:
        """Share by which the second half of the updates lowered the lowest validation loss; None if not known."""
        if not self._losses or not math.isfinite(last := min(loss for _, loss in self._losses)):
            return None
        before = [loss for update, loss in self._losses if update <= self._losses[-1][0] / 2]
        first = min(before, default=math.nan)
        return 1 - last / first if math.isfinite(first) and first > 0 else None

    def state_dict(self) -> dict[str, Any]:
        """What resumes with the model."""
        return {
            "best": self._best,
            "without_gain": self._without_gain,
            "last_gain": self._last_gain,
            "losses": self._losses,
            "ends_at": self.ends_at,
            "plateau_update": self.plateau_update,
            "decay_update": self.decay_update,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume."""
        self._best, self._losses = state_dict["best"], state_dict["losses"]
        self._without_gain, self._last_gain = state_dict["without_gain"], state_dict["last_gain"]
        self.ends_at = state_dict["ends_at"]
        self.plateau_update, self.decay_update = state_dict["plateau_update"], state_dict["decay_update"]

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Look for a gain; start the decay, or end training, where it is due."""
        update = trainer.global_step
        self._look_for_gain(trainer, update)
        if self.ends_at is None:
            plateau = self._without_gain == self._patience
            if plateau:
                self.plateau_update = self._last_gain or update
                self._start_decay(trainer, update, steps=_decay_steps(trainer, update))
            elif self._is_last_chance(trainer, update):
                self._start_decay(trainer, update, steps=trainer.max_steps - update)
        trainer.should_stop |= self.ends_at is not None and update >= self.ends_at

    def _look_for_gain(self, trainer: L.Trainer, update: int) -> None:
        gained = False
        for name in self._metrics:
            value, best = float(trainer.callback_metrics[name]), self._best[name]
            value = math.inf if math.isnan(value) else value  # NaN would compare as better than everything
            if name == "validation/loss":
                self._losses.append([update, value])
            enough = max(self._gain * best, self._difference) if math.isfinite(best) else 0.0
            if value < best - enough:
                self._best[name], gained = value, True
        self._without_gain = 0 if gained else self._without_gain + 1
        self._last_gain = update if gained else self._last_gain

    def _is_last_chance(self, trainer: L.Trainer, update: int) -> bool:
        """Whether a decay that begins one validation later would be cut off by ``trainer.max_steps``."""
        after = update + validation_interval(trainer)
        return after + _decay_steps(trainer, after) > trainer.max_steps

    def _start_decay(self, trainer: L.Trainer, update: int, *, steps: int) -> None:
        self.ends_at = update + steps
        if steps and (schedule := _schedule(trainer)):
            self.decay_update = update
            schedule.start_decay(steps)


def validation_interval(trainer: L.Trainer) -> int:
    """Updates between two validations."""
    return max(1, int(trainer.val_check_batch or 1) // trainer.accumulate_grad_batches)


def _decay_steps(trainer: L.Trainer, update: int) -> int:
    """Updates of a decay that begins after ``update``: up to a validation, and 0 for a schedule that has none."""
    if (schedule := _schedule(trainer)) is None:
        return 0
    interval = validation_interval(trainer)
    return math.ceil(schedule.decay_after(update) / interval) * interval


def _schedule(trainer: L.Trainer) -> WarmupConstantDecay | None:
    """The schedule, if it has a decay that can be started."""
    schedule = trainer.lr_scheduler_configs[0].scheduler
    return schedule if isinstance(schedule, WarmupConstantDecay) and schedule.decay_share > 0 else None
