"""The prepared corpus as a Lightning data module."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader

from attnspan.data.corpora.base import SPLITS, TEST, TRAIN, VALIDATION
from attnspan.data.pipeline.batches import Batch, EncodedSplit, TrainingLoader, make_loader, plan_batches
from attnspan.data.pipeline.prepare import PreparedData


class DataModule(lightning.LightningDataModule):
    """Loaders of the three splits of prepared data."""

    def __init__(
        self,
        *,
        prepared: PreparedData,
        seed: int,
        batch_tokens: int,
        evaluation_batch_tokens: int,
        workers: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Plan the batches.

        Args:
            seed: determines the order of training batches, together with the epoch.
            batch_tokens: maximum number of positions on either side of a training batch, including padding.
            evaluation_batch_tokens: ``batch_tokens`` of validation and test.
            workers: number of processes that prefetch batches; 0 loads them in this process.
            rank: of this process, from 0.
            ranks: number of processes that share every batch; the batches do not depend on it.

        Raises:
            InputError: a single example exceeds its budget.
        """
        super().__init__()
        self.prepared = prepared
        self._seed = seed
        self._loading: dict[str, Any] = {"workers": workers, "pin_memory": torch.cuda.is_available()}
        self._splits = {name: EncodedSplit(getattr(prepared, name), rank=rank, ranks=ranks) for name in SPLITS}
        budgets = dict.fromkeys(SPLITS, (evaluation_batch_tokens, "loader.evaluation_batch_tokens"))
        budgets[TRAIN] = (batch_tokens, "loader.batch_tokens")
        self._batches = {name: plan_batches(self._splits[name], *budgets[name]) for name in SPLITS}
        self._decoded: Collection[int] = ()

    def skip_decoded(self, rows: Collection[int]) -> None:
        """Skip the test batches whose ``rows`` are all decoded already; the other batches stay the same."""
        self._decoded = rows

    def train_dataloader(self) -> TrainingLoader:
        """Training batches; resumable."""
        return TrainingLoader(split=self._splits[TRAIN], batches=self._batches[TRAIN], seed=self._seed, **self._loading)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every validation example once, sorted by length."""
        return make_loader(self._splits[VALIDATION], self._batches[VALIDATION].in_order(), **self._loading)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every test example that is not decoded yet, sorted by length."""
        batches = self._batches[TEST].in_order()
        left = [rows for rows in batches if not all(int(row) in self._decoded for row in rows)]
        return make_loader(self._splits[TEST], left, **self._loading)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Transfer a batch asynchronously, which Lightning does for bare tensors only."""
        return batch.to(device, non_blocking=True)
