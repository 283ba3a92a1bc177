"""The prepared corpus as a Lightning data module."""

from __future__ import annotations

from collections.abc import Collection

import lightning
import torch
from torch.utils.data import DataLoader

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
            prepared: the corpus.
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
        self._workers = workers
        self._pin_memory = torch.cuda.is_available()
        self._train, self._validation, self._test = (
            EncodedSplit(split, rank=rank, ranks=ranks)
            for split in (prepared.train, prepared.validation, prepared.test)
        )
        self._train_batches = plan_batches(self._train, batch_tokens, "loader.batch_tokens")
        key = "loader.evaluation_batch_tokens"
        self._validation_batches = plan_batches(self._validation, evaluation_batch_tokens, key)
        self._test_batches = plan_batches(self._test, evaluation_batch_tokens, key)
        self._decoded: Collection[int] = ()

    def skip_decoded(self, rows: Collection[int]) -> None:
        """Skip the test batches whose ``rows`` are all decoded already; the other batches stay the same."""
        self._decoded = rows

    def train_dataloader(self) -> TrainingLoader:
        """Training batches; resumable."""
        return TrainingLoader(
            split=self._train,
            batches=self._train_batches,
            seed=self._seed,
            workers=self._workers,
            pin_memory=self._pin_memory,
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every validation example once, sorted by length."""
        batches = self._validation_batches.in_order()
        return make_loader(self._validation, batches, workers=self._workers, pin_memory=self._pin_memory)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every test example that is not decoded yet, sorted by length."""
        batches = [rows for rows in self._test_batches.in_order() if not all(int(row) in self._decoded for row in rows)]
        return make_loader(self._test, batches, workers=self._workers, pin_memory=self._pin_memory)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Transfer a batch asynchronously, which Lightning does for bare tensors only."""
        return batch.to(device, non_blocking=True)
