"""Prepared data as Lightning data modules: one split that is decoded, and the three splits of a run."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import lightning
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from attnspan.data.extended_vocabulary import ExtendedVocabulary
from attnspan.data.pipeline.batches import Batch, EncodedSplit, TrainingLoader, make_loader, plan_batches
from attnspan.data.pipeline.prepare import PreparedData

_EVALUATION_KEY = "loader.evaluation_batch_tokens"


class DecodedSplit(lightning.LightningDataModule):
    """The loader of a split that is decoded."""

    def __init__(
        self,
        split: Dataset,
        *,
        evaluation_batch_tokens: int,
        workers: int,
        rank: int = 0,
        ranks: int = 1,
        with_eos: bool = True,
        extended: ExtendedVocabulary | None = None,
    ) -> None:
        """Plan the batches; the arguments are those of :class:`DataModule`.

        Raises:
            InputError: a single example exceeds the budget.
        """
        super().__init__()
        self._loading: dict[str, Any] = {"workers": workers, "pin_memory": torch.cuda.is_available()}
        self._test = EncodedSplit(split, rank=rank, ranks=ranks, with_eos=with_eos, extended=extended)
        self._test_batches = plan_batches(self._test, evaluation_batch_tokens, _EVALUATION_KEY)
        self._decoded: Collection[int] = ()

    def skip_decoded(self, rows: Collection[int]) -> None:
        """Skip the batches whose ``rows`` are all decoded already; the other batches stay the same."""
        self._decoded = rows

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every example that is not decoded yet, sorted by length."""
        batches = self._test_batches.in_order()
        left = [rows for rows in batches if not all(int(row) in self._decoded for row in rows)]
        return make_loader(self._test, left, **self._loading)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Transfer a batch asynchronously, which Lightning does for bare tensors only."""
        return batch.to(device, non_blocking=True)


class DataModule(DecodedSplit):
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
        with_eos: bool = True,
        extended: ExtendedVocabulary | None = None,
    ) -> None:
        """Plan the batches.

        Args:
            seed: determines the order of training batches, together with the epoch.
            batch_tokens: maximum number of positions on either side of a training batch, including padding.
            evaluation_batch_tokens: ``batch_tokens`` of validation and test.
            workers: number of processes that prefetch batches; 0 loads them in this process.
            rank: of this process, from 0.
            ranks: number of processes that share every batch; the batches do not depend on it.
            with_eos: whether targets end with ``<eos>``; the batches do not depend on it.
            extended: the vocabulary of an arm that copies; None for other arms.

        Raises:
            InputError: a single example exceeds its budget.
        """
        share: dict[str, Any] = {"rank": rank, "ranks": ranks, "with_eos": with_eos, "extended": extended}
        super().__init__(prepared.test, evaluation_batch_tokens=evaluation_batch_tokens, workers=workers, **share)
        self._seed = seed
        self._train = EncodedSplit(prepared.train, **share)
        self._train_batches = plan_batches(self._train, batch_tokens, "loader.batch_tokens")
        self._validation = EncodedSplit(prepared.validation, **share)
        self._validation_batches = plan_batches(self._validation, evaluation_batch_tokens, _EVALUATION_KEY)

    def train_dataloader(self) -> TrainingLoader:
        """Training batches; resumable."""
        return TrainingLoader(split=self._train, batches=self._train_batches, seed=self._seed, **self._loading)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every validation example once, sorted by length."""
        return make_loader(self._validation, self._validation_batches.in_order(), **self._loading)
