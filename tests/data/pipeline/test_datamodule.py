from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from attnspan.data.pipeline.batches import Batch
from attnspan.data.pipeline.datamodule import DataModule
from attnspan.data.pipeline.prepare import PreparedData
from attnspan.data.tokenizer import EOS
from attnspan.errors import InputError

torch.set_num_threads(1)


def module(prepared: PreparedData, **changes: Any) -> DataModule:
    return DataModule(
        **{"prepared": prepared, "seed": 1, "batch_tokens": 512, "evaluation_batch_tokens": 256, "workers": 0} | changes
    )


def test_targets_end_with_eos_or_none_does(prepared: PreparedData) -> None:
    """In training, validation and test."""
    for with_eos in (True, False):
        loaders = module(prepared, with_eos=with_eos)
        for loader in (loaders.train_dataloader(), loaders.val_dataloader(), loaders.test_dataloader()):
            ends = torch.cat([(batch.target_output == EOS).sum(dim=1) for batch in loader])
            assert ends.tolist() == [int(with_eos)] * len(ends)


class Witness(lightning.LightningModule):
    """Learns nothing and records the rows that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained: list[list[int]] = []
        self.validated: list[int] = []

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.trained.append(batch.index.tolist())
        return self.weight * batch.target_tokens

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated += batch.index.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(prepared: PreparedData, steps: int, directory: Path, *, resume: bool = False, **changes: Any) -> Witness:
    """Train to ``steps`` updates in total and save a checkpoint."""
    witness = Witness()
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=directory,
        num_sanity_val_steps=0,
        **{"val_check_interval": 4, "check_val_every_n_epoch": None} | changes,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = directory / "last.ckpt"
        trainer.fit(witness, datamodule=module(prepared), ckpt_path=path if resume else None)
    trainer.save_checkpoint(path)
    return witness


def test_each_split_is_loaded_completely(prepared: PreparedData) -> None:
    data = module(prepared)
    for loader, rows in (
        (data.train_dataloader(), prepared.train.num_rows),
        (data.val_dataloader(), prepared.validation.num_rows),
        (data.test_dataloader(), prepared.test.num_rows),
    ):
        shown = [row for batch in loader for row in batch.index.tolist()]
        assert sorted(shown) == list(range(rows))


def test_budgets_hold(prepared: PreparedData) -> None:
    data = module(prepared)
    for loader, budget in ((data.train_dataloader(), 512), (data.val_dataloader(), 256), (data.test_dataloader(), 256)):
        for batch in loader:
            assert len(batch.index) * max(batch.source.shape[1], batch.target_output.shape[1]) <= budget


@pytest.mark.parametrize(
    ("key", "budget", "rest"),
    [
        ("batch_tokens", 12, "13 tokens (train row 10)"),
        ("evaluation_batch_tokens", 20, "21 tokens (test row 18)"),
    ],
)
def test_a_budget_that_is_too_small_names_its_key_and_the_row(
    prepared: PreparedData, key: str, budget: int, rest: str
) -> None:
    with pytest.raises(InputError) as error:
        module(prepared, **{key: budget})
    assert str(error.value) == f"loader.{key}={budget} is smaller than the longest example, {rest}"


def test_order_depends_on_the_seed_only(prepared: PreparedData) -> None:
    def order(**changes: Any) -> list[list[int]]:
        return [batch.index.tolist() for batch in module(prepared, **changes).train_dataloader()]

    assert order() == order(evaluation_batch_tokens=100)
    assert order() != order(seed=2)


@pytest.mark.parametrize("checks", [{}, {"val_check_interval": 1.0, "check_val_every_n_epoch": 1}])
def test_lightning_resumes_with_the_next_batch(prepared: PreparedData, tmp_path: Path, checks: dict[str, Any]) -> None:
    n = len(module(prepared).train_dataloader())
    steps = 2 * n + 3
    whole = fit(prepared, steps, tmp_path, **checks)
    assert sorted(row for batch in whole.trained[:n] for row in batch) == list(range(500))
    assert sorted(row for batch in whole.trained[n : 2 * n] for row in batch) == list(range(500))
    for stop in (1, 4, n - 1, n, n + 1, 2 * n):
        before = fit(prepared, stop, tmp_path, **checks)
        after = fit(prepared, steps, tmp_path, resume=True, **checks)
        assert before.trained + after.trained == whole.trained, f"stopped after {stop} of {n}"
        assert before.validated + after.validated == whole.validated, f"stopped after {stop} of {n}"
