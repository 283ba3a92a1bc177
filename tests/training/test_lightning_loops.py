"""What the checkpoints rely on in Lightning's loops. If a test here fails, Lightning has changed, not attnspan."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from attnspan.training.lightning_loops import TESTED_WITH, is_followed_by_validation, rewind_fetched_batch

ROOT = Path(__file__).parents[2]


class Loader:
    """Six numbers, and how many of them were handed out, as a loader tells Lightning."""

    def __init__(self) -> None:
        self.batch = 0

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Any:
        while self.batch < 6:
            self.batch += 1
            yield torch.full((1, 1), float(self.batch))
        self.batch = 0

    def state_dict(self) -> dict[str, int]:
        return {"batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.batch = state["batch"]


class Probe(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.batches: list[float] = []

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        self.batches.append(float(batch))
        return self.layer(batch).sum()

    def validation_step(self, batch: torch.Tensor) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Watch(L.Callback):
    """At the start of a batch: is it followed by a validation? Saves a checkpoint at one of them."""

    def __init__(self, path: Path, *, save_at: int | None = None) -> None:
        self.path, self.save_at = path, save_at
        self.announced: list[int] = []
        self.validated: list[int] = []
        self.logged_steps = 0

    def on_train_batch_start(self, trainer: L.Trainer, *arguments: Any) -> None:
        if is_followed_by_validation(trainer):
            self.announced.append(trainer.global_step + 1)
        if trainer.global_step == self.save_at:
            trainer.save_checkpoint(self.path)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.validated.append(trainer.global_step)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.logged_steps = trainer.fit_loop.epoch_loop._batches_that_stepped  # the step that loggers get

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        rewind_fetched_batch(trainer, checkpoint)


def fit(watch: Watch, *, checkpoint: Path | None = None) -> Probe:
    module = Probe()
    trainer = L.Trainer(
        max_steps=9,
        val_check_interval=4,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[watch],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    validation: Any = DataLoader(torch.zeros(1, 1))  # type: ignore[arg-type]
    trainer.fit(module, Loader(), validation, ckpt_path=checkpoint, weights_only=True)
    return module


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Probe, Watch]:
    watch = Watch(tmp_path_factory.mktemp("untouched") / "a.ckpt")
    return fit(watch), watch


def test_validations_are_announced_by_the_batch_before_them(untouched: tuple[Probe, Watch]) -> None:
    _, watch = untouched
    assert watch.validated == [4, 8]
    assert watch.announced == watch.validated


@pytest.mark.parametrize("update", [1, 3, 4, 6, 7, 8])
def test_a_run_resumes_with_the_batch_that_was_fetched(
    untouched: tuple[Probe, Watch], tmp_path: Path, update: int
) -> None:
    """In an epoch, after its end (6), after a validation (4, 8)."""
    module, watch = untouched
    fit(Watch(tmp_path / "a.ckpt", save_at=update))
    again = Watch(tmp_path / "b.ckpt")
    resumed = fit(again, checkpoint=tmp_path / "a.ckpt")
    assert resumed.batches == module.batches[update:]
    assert again.validated == [one for one in watch.validated if one > update]
    assert again.logged_steps == watch.logged_steps == 9


def test_the_pin_is_the_version_that_was_tested() -> None:
    assert L.__version__.startswith(f"{TESTED_WITH}.")
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    major, minor = TESTED_WITH.split(".")
    assert f"lightning>={TESTED_WITH},<{major}.{int(minor) + 1}" in dependencies
