"""The prepared corpus as Lightning wants it."""

from __future__ import annotations

from collections.abc import Collection

import lightning
import torch
from torch.utils.data import DataLoader

from attnspan.data.pipeline.batches import Batch, EncodedSplit, TrainingLoader, loader, plan_batches
from attnspan.data.pipeline.prepare import PreparedData


class DataModule(lightning.LightningDataModule):
    """Loaders over the three splits. Nothing is downloaded or written here: :func:`prepare` has done that."""

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
            seed: with the epoch, it alone decides the order in training.
            batch_tokens: most positions, padding included, that a training batch has on either side.
            evaluation_batch_tokens: as ``batch_tokens``, for validation and test.
            workers: processes that make batches ahead; 0 makes them in this one.
            rank: of this process, counted from 0.
            ranks: processes that share every batch: a batch is the same whatever their number.

        Raises:
            InputError: an example alone is over its budget.
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
        self._tested: Collection[int] = ()

    def leave_out(self, rows: Collection[int]) -> None:
        """Leave out those test batches all of whose ``rows`` are decoded already; the others are what they were."""
        self._tested = rows

    def train_dataloader(self) -> TrainingLoader:
        """Batches in an order of (seed, epoch), resumable."""
        return TrainingLoader(
            split=self._train,
            batches=self._train_batches,
            seed=self._seed,
            workers=self._workers,
            pin_memory=self._pin_memory,
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every validation example once, by length."""
        batches = self._validation_batches.in_order()
        return loader(self._validation, batches, workers=self._workers, pin_memory=self._pin_memory)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every test example once, by length, but for what is left out."""
        batches = [rows for rows in self._test_batches.in_order() if not all(int(row) in self._tested for row in rows)]
        return loader(self._test, batches, workers=self._workers, pin_memory=self._pin_memory)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch without waiting for it (Lightning waits for whatever is no bare tensor)."""
        return batch.to(device, non_blocking=True)
