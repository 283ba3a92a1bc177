"""Validation by source length, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from attnspan.analysis.lengths.axis import LengthAxis
from attnspan.analysis.lengths.bins import Bins
from attnspan.data.tokenizer import PAD
from attnspan.training.callbacks.validation_by_length import ValidationByLength
from attnspan.training.lightning_module import ValidationOutput


def test_sums_over_batches_by_hand() -> None:
    logged: dict[str, float] = {}
    trainer = cast(Any, SimpleNamespace(strategy=SimpleNamespace(reduce=lambda tensor, reduce_op: tensor)))
    module = cast(
        Any,
        SimpleNamespace(
            device=torch.device("cpu"), log=lambda name, value, rank_zero_only: logged.update({name: value})
        ),
    )
    callback = ValidationByLength(Bins(LengthAxis("source"), (0, 3, 6, 9)))
    callback.on_validation_epoch_start(trainer, module)
    # sources of 3 and of 4 tokens are in the first and the second bin; nothing is in the third
    for lengths, nll, correct, tokens in (
        ([2, 4], [1.0, 6.0], [2, 0], [2, 3]),
        ([3, 6, 1], [4.0, 2.0, 0.5], [0, 1, 1], [3, 1, 1]),
    ):
        target = torch.full((len(lengths), 3), PAD)
        for row, count in enumerate(tokens):
            target[row, :count] = 9
        batch = cast(Any, SimpleNamespace(source_lengths=torch.tensor(lengths), labels=target, target_output=target))
        outputs = ValidationOutput(nll=torch.tensor(nll).double(), correct=torch.tensor(correct))
        callback.on_validation_batch_end(trainer, module, outputs, batch, 0)
    callback.on_validation_epoch_end(trainer, module)
    assert logged == pytest.approx(
        {
            "validation_loss/source_1-3": (1.0 + 4.0 + 0.5) / 6,
            "validation_accuracy/source_1-3": 3 / 6,
            "validation_loss/source_4-6": (6.0 + 2.0) / 4,
            "validation_accuracy/source_4-6": 1 / 4,
        }
    )


def test_each_validation_begins_anew() -> None:
    trainer, module = cast(Any, None), cast(Any, SimpleNamespace(device=torch.device("cpu")))
    callback = ValidationByLength(Bins(LengthAxis("source"), (0, 3)))
    for _ in range(2):
        callback.on_validation_epoch_start(trainer, module)
        assert callback._sums.sum() == 0
        callback._sums += 1
