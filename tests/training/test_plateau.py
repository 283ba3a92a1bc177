"""When training ends: at validations whose values are given by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attnspan.training.callbacks.plateau import Plateau
from attnspan.training.learning_rate import WarmupConstantDecay

NAN = float("nan")


class Training:
    """A trainer with a validation after every update."""

    def __init__(self, *, cap: int = 100, decay_share: float = 0.0, **settings: Any) -> None:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        self.schedule = WarmupConstantDecay(optimizer, warmup_steps=0, decay_share=decay_share, final_ratio=0.0)
        defaults = {"selection_metric": "loss", "patience": 2, "minimum_gain": 0.1, "minimum_difference": 0.001}
        self.plateau = Plateau(**{**defaults, **settings})
        self.trainer: Any = SimpleNamespace(
            should_stop=False,
            global_step=0,
            max_steps=cap,
            val_check_batch=1,
            accumulate_grad_batches=1,
            lr_scheduler_configs=[SimpleNamespace(scheduler=self.schedule)],
        )

    def validate(self, *losses: float, rates: tuple[float, ...] = ()) -> int:
        """One validation an update; the number of updates when training ends, or when there are no more values."""
        for loss, rate in zip(losses, rates or losses, strict=True):
            self.trainer.global_step += 1
            self.schedule.last_epoch = self.trainer.global_step
            values = {"validation/loss": loss, "validation/sequence_error_rate": rate}
            self.trainer.callback_metrics = {name: torch.tensor(value).double() for name, value in values.items()}
            self.plateau.on_validation_end(self.trainer)
            if self.trainer.should_stop:
                break
        return int(self.trainer.global_step)


def test_a_gain_is_a_share_of_the_best() -> None:
    """A tenth of 1.0 is a gain, and what comes after it must lower 0.9 by a tenth: 0.82 does not, 0.80 does."""
    training = Training()
    assert training.validate(1.0, 0.9, 0.82, 0.80, 0.75, 0.73) == 6
    assert (training.plateau.ended_by, training.plateau.plateau_update) == ("plateau", 4)


def test_near_zero_a_gain_is_a_difference() -> None:
    """0.0005 is half of the best, and nothing that matters."""
    training = Training()
    assert training.validate(0.001, 0.0005, 0.0001, 0.0001) == 3
    assert training.plateau.plateau_update == 1


def test_a_gain_in_the_selection_metric_counts_too() -> None:
    """The loss rises while the error rate falls, as in a model that grows too sure."""
    training = Training(selection_metric="sequence_error_rate")
    assert training.validate(1.0, 1.1, 1.2, 1.3, 1.4, rates=(0.5, 0.4, 0.3, 0.3, 0.3)) == 5
    assert training.plateau.plateau_update == 3
    by_loss = Training(selection_metric="loss")
    assert by_loss.validate(1.0, 1.1, 1.2, 1.3, 1.4, rates=(0.5, 0.4, 0.3, 0.3, 0.3)) == 3


def test_nan_is_no_gain() -> None:
    training = Training()
    assert training.validate(NAN, NAN, NAN) == 2
    assert training.plateau.last_doubling_gain is None


def test_without_patience_only_the_cap_ends_training() -> None:
    training = Training(patience=None, cap=6)
    assert training.validate(*[1.0] * 10) == 6
    assert (training.plateau.ended_by, training.plateau.plateau_update) == ("max_steps", None)


def test_the_decay_follows_the_plateau_and_ends_training() -> None:
    """The plateau is seen after update 3; a decay of half of all updates takes 3 more."""
    training = Training(decay_share=0.5)
    assert training.validate(1.0, 1.0, 1.0) == 3
    assert (training.schedule.decay_start, training.schedule.decay_steps, training.plateau.ends_at) == (3, 3, 6)
    assert training.validate(*[0.1] * 9) == 6  # a gain in the decay changes nothing
    assert training.plateau.plateau_update == 1


@pytest.mark.parametrize(("cap", "start"), [(10, 5), (11, 5), (12, 6), (2, 1), (1, None)])  # half of all updates
def test_the_cap_cuts_no_decay_off(cap: int, start: int | None) -> None:
    training = Training(decay_share=0.5, cap=cap)
    losses = [2.0**-k for k in range(20)]
    training.plateau._difference = 0.0
    assert training.validate(*losses) == cap
    assert training.plateau.decay_update == start
    assert training.plateau.ended_by == "max_steps"


def test_the_last_doubling_by_hand() -> None:
    training = Training(patience=None)
    training.validate(2.0, 1.0, 1.5, 0.6, 0.8, 0.7)  # up to update 3 the best is 1.0, in all it is 0.6
    assert training.plateau.last_doubling_gain == pytest.approx(0.4)


def test_all_of_it_resumes() -> None:
    losses = [1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    whole = Training(decay_share=0.3)
    end = whole.validate(*losses)
    for stop in range(1, end):
        first, second = Training(decay_share=0.3), Training(decay_share=0.3)
        first.validate(*losses[:stop])
        second.plateau.load_state_dict(first.plateau.state_dict())
        second.schedule.load_state_dict(first.schedule.state_dict())
        second.trainer.global_step = stop
        assert second.validate(*losses[stop:]) == end
        assert second.plateau.state_dict() == whole.plateau.state_dict()
