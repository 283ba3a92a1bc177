"""Batches: which examples go together, in which order, and as which tensors."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from attnspan.data.corpora.base import row_words
from attnspan.data.tokenizer import BOS, EOS, PAD
from attnspan.errors import InputError


@dataclass(kw_only=True)
class Batch:
    """Examples side by side. A position at or past an example's length holds ``PAD``."""

    source: Tensor
    """[B, S] int64"""
    source_lengths: Tensor
    """[B] int64, always on the CPU: packing a sequence needs them there."""
    target_input: Tensor
    """[B, T+1] int64: ``<bos>`` y1 ... yT"""
    target_output: Tensor
    """[B, T+1] int64: y1 ... yT ``<eos>``"""
    index: Tensor
    """[B] int64, always on the CPU: the examples' row numbers in their split."""
    target_tokens: int
    """Tokens in ``target_output`` that are not padding, ``<eos>`` counted."""
    whole_tokens: int
    """The same of the whole batch, of which this may be the share of one of several processes."""
    ranks: int = 1
    """Processes that share the whole batch."""

    @property
    def examples(self) -> int:
        """B; 0 where no example was left for this process, which then has one to keep the others company."""
        return len(self.index) if self.target_tokens else 0

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch with its token tensors on ``device``."""
        return replace(
            self,
            source=self.source.to(device, non_blocking=non_blocking),
            target_input=self.target_input.to(device, non_blocking=non_blocking),
            target_output=self.target_output.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Batch:
        """The batch with its token tensors in page-locked memory, from where they move without blocking."""
        return replace(
            self,
            source=self.source.pin_memory(),
            target_input=self.target_input.pin_memory(),
            target_output=self.target_output.pin_memory(),
        )


class EncodedSplit:
    """A prepared split that gives the batch of any list of its rows, or the share of it that one process has.

    The token ids are read where the Arrow file lies mapped in memory; only those of the batch are copied.

    Args:
        dataset: the split.
        rank: of this process, counted from 0.
        ranks: processes that share every batch.
    """

    def __init__(self, dataset: Dataset, *, rank: int = 0, ranks: int = 1) -> None:
        self._dataset = dataset
        self._rank = rank
        self._ranks = ranks
        self._source = _IdColumn(dataset, "source_ids")
        self._target = _IdColumn(dataset, "target_ids")

    @property
    def source_lengths(self) -> NDArray[np.int32]:
        """[N] tokens of each source."""
        return self._source.lengths

    @property
    def target_lengths(self) -> NDArray[np.int32]:
        """[N] tokens of each target, ``<eos>`` not counted."""
        return self._target.lengths

    def place(self, row: int) -> str:
        """Words by which the owner of the data finds what row number ``row`` was made of."""
        name = self._dataset[row]["id"]
        return f"{name.partition('-')[0]} {row_words(name)}"

    def __len__(self) -> int:
        return len(self._source.lengths)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """The batch of ``rows``, in their order; of several processes each has every ``ranks``-th of them.

        All processes must take part in every batch. One for which no row is left repeats a row with a target of nothing
        but padding (``target_tokens`` 0), which adds nothing to any sum.
        """
        whole = np.asarray(rows, dtype=np.int64)
        index = whole[self._rank :: self._ranks]
        idle = len(index) == 0
        if idle:
            index = whole[:1]
        source_lengths, source = self._source.padded(index)
        target_lengths, target = self._target.padded(index)
        edge = np.full((len(index), 1), PAD, dtype=np.int64)
        target_output = np.hstack([target, edge])
        target_output[np.arange(len(index)), target_lengths] = EOS
        if idle:
            target_output[:] = PAD
        edge[:] = BOS
        return Batch(
            source=torch.from_numpy(source),
            source_lengths=torch.from_numpy(source_lengths),
            target_input=torch.from_numpy(np.hstack([edge, target])),
            target_output=torch.from_numpy(target_output),
            index=torch.from_numpy(index),
            target_tokens=0 if idle else int(target_lengths.sum()) + len(index),
            whole_tokens=int(self._target.lengths[whole].sum()) + len(whole),
            ranks=self._ranks,
        )

    def __reduce__(self) -> tuple[Any, tuple[Dataset]]:
        # Another process maps the file itself; the views would be copied.
        return partial(EncodedSplit, rank=self._rank, ranks=self._ranks), (self._dataset,)


class _IdColumn:
    """A column of lists of token ids, as views into the Arrow file."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        chunks = [chunk for chunk in dataset.data[name].chunks if len(chunk)]
        self._values = [chunk.values.to_numpy() for chunk in chunks]
        self._offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        self._first = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        self.lengths: NDArray[np.int32] = np.concatenate([np.diff(o) for o in self._offsets])

    def padded(self, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Lengths [B] and ids [B, longest] of the rows ``index``."""
        chunks = np.searchsorted(self._first, index, side="right") - 1
        within = index - self._first[chunks]
        lengths = self.lengths[index].astype(np.int64)
        ids = np.full((len(index), lengths.max()), PAD, dtype=np.int64)
        ids[np.arange(ids.shape[1]) < lengths[:, None]] = np.concatenate(
            [
                self._values[chunk][self._offsets[chunk][row] : self._offsets[chunk][row + 1]]
                for chunk, row in zip(chunks.tolist(), within.tolist(), strict=True)
            ]
        )
        return lengths, ids


class TokenBudgetBatches:
    """Lists of rows of similar length, so many that ``B * max(S, T+1) <= batch_tokens``.

    Rows are sorted by length and cut into batches. For training, rows of the same length are mixed anew in each epoch
    and the batches then come in random order. Which rows are equally long does not depend on the epoch, so all epochs
    have the same number of batches.
    """

    def __init__(
        self,
        *,
        source_lengths: NDArray[np.integer[Any]],
        target_lengths: NDArray[np.integer[Any]],
        batch_tokens: int,
        key: str = "batch_tokens",
    ) -> None:
        """Plan the batches.

        Args:
            source_lengths: [N] tokens of each source.
            target_lengths: [N] tokens of each target, ``<eos>`` not counted.
            batch_tokens: most positions a batch may have on either side, padding included.
            key: what the budget is called in the config.

        Raises:
            InputError: one example alone is over the budget.
        """
        self._longer = np.maximum(source_lengths, target_lengths + 1)
        self._other = np.minimum(source_lengths, target_lengths + 1)
        longest = int(self._longer.max())
        if longest > batch_tokens:
            raise InputError(f"{key}={batch_tokens} is less than the longest example, {longest} tokens")
        self._cuts = _cuts(np.sort(self._longer), batch_tokens)

    def __len__(self) -> int:
        return len(self._cuts) - 1

    def in_order(self) -> list[NDArray[np.int64]]:
        """Every row once, by length: for evaluation."""
        return self._cut(np.lexsort((self._other, self._longer)))

    def shuffled(self, *, seed: int, epoch: int) -> list[NDArray[np.int64]]:
        """Every row once, in an order that is a function of ``seed`` and ``epoch`` and of nothing else."""
        draw = np.random.default_rng([seed, epoch])
        batches = self._cut(np.lexsort((draw.random(len(self._longer)), self._other, self._longer)))
        return [batches[i] for i in draw.permutation(len(batches))]

    def _cut(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return [rows[first:last] for first, last in zip(self._cuts[:-1], self._cuts[1:], strict=True)]


def _cuts(lengths: NDArray[np.integer[Any]], batch_tokens: int) -> list[int]:
    """Where to cut rows of these ascending ``lengths``, so that each batch is as large as the budget allows."""
    cuts = [0]
    steps = np.flatnonzero(np.diff(lengths)) + 1
    for first, end in pairwise([0, *steps.tolist(), len(lengths)]):  # rows of one length
        most = batch_tokens // int(lengths[first])
        while (row := max(first, cuts[-1] + most)) < end:
            cuts.append(row)
    return [*cuts, len(lengths)]


def plan_batches(split: EncodedSplit, batch_tokens: int, key: str) -> TokenBudgetBatches:
    """The batches of ``split``; ``key`` is what the budget is called in the config.

    Raises:
        InputError: one example alone is over the budget; names its split and row.
    """
    source, target = split.source_lengths, split.target_lengths
    try:
        return TokenBudgetBatches(source_lengths=source, target_lengths=target, batch_tokens=batch_tokens, key=key)
    except InputError as error:
        longest = int(np.maximum(source, target + 1).argmax())
        raise InputError(f"{error} ({split.place(longest)})") from None


class TrainingLoader:
    """Training batches, epoch after epoch, from wherever it was stopped.

    ``state_dict`` is (epoch, batch): how many epochs, and batches of the one under way, were handed out. Lightning
    saves it in its checkpoints by itself. Batches that workers have fetched ahead do not count.
    """

    def __init__(
        self, *, split: EncodedSplit, batches: TokenBudgetBatches, seed: int, workers: int, pin_memory: bool
    ) -> None:
        self._split = split
        self._batches = batches
        self._seed = seed
        self._workers = workers
        self._pin_memory = pin_memory
        self._epoch = 0
        self._batch = 0

    def __len__(self) -> int:
        """Batches in one whole epoch."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch under way, or the next epoch if none is."""
        rows = self._batches.shuffled(seed=self._seed, epoch=self._epoch)
        for batch in loader(self._split, rows[self._batch :], workers=self._workers, pin_memory=self._pin_memory):
            self._batch += 1
            if self._batch == len(rows):
                self._epoch, self._batch = self._epoch + 1, 0
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where to go on."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where ``state`` was taken."""
        self._epoch, self._batch = state["epoch"], state["batch"]


def loader(split: EncodedSplit, rows: list[NDArray[np.int64]], *, workers: int, pin_memory: bool) -> DataLoader[Batch]:
    """The batches of ``rows``, in their order."""
    return DataLoader(
        split,  # type: ignore[arg-type]  # indexed by lists of rows: that is what batch_size=None asks for
        sampler=rows,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=pin_memory,
        # Without its own, a loader takes a number from the global generator for its workers.
        generator=torch.Generator(),
        worker_init_fn=_end_with_the_run,
    )


def _end_with_the_run(worker: int) -> None:
    """Let a worker end when its run is killed: torch's own look after whose child it is finds a fork server alive."""
    run = multiprocessing.parent_process()

    def wait() -> None:
        if run is not None:
            run.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _as_it_is(batch: Any) -> Any:
    return batch
