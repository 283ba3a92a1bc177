"""Batches: which examples they contain, in which order, and their tensors."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Bool, Int, Int32, Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from attnspan.data.arrow import PIXELS
from attnspan.data.background import in_thread
from attnspan.data.corpora.base import describe_rows
from attnspan.data.extended_vocabulary import ExtendedVocabulary
from attnspan.data.given import GIVEN
from attnspan.data.images.batches import PatchBudgetBatches
from attnspan.data.images.columns import ImageColumn
from attnspan.data.tokenizer import BOS, EOS, PAD
from attnspan.errors import InputError
from attnspan.models.encoders.base import SizesTensor, SourceTensor


@dataclass(kw_only=True)
class Batch:
    """A batch of examples, padded with ``PAD`` to the longest; here T counts ``<eos>`` where there is one."""

    source: SourceTensor
    """Token ids, or the pixels of images, padded with 0. For an arm that copies, the ids of the same tokens in the
    extended vocabulary stand below them."""
    source_lengths: SizesTensor
    """Tokens of each source, or height and width of each image; always on the CPU, where packed sequences need them."""
    target_input: Int64[Tensor, "B T"]
    """Token ids ``<bos>`` y1 y2 ..."""
    target_output: Int64[Tensor, "B T"]
    """Token ids y1 y2 ... ``<eos>``; without ``<eos>`` where the split is read without. For an arm that copies, ids of
    the extended vocabulary."""
    index: Int64[Tensor, " B"]
    """Row number of each example in its split; always on the CPU."""
    target_tokens: int
    """Number of tokens in ``labels`` except padding."""
    whole_tokens: int
    """``target_tokens`` of the whole batch, of which this may be the share of one process."""
    whole_examples: int
    """Number of examples of the whole batch."""
    ranks: int = 1
    """Number of processes that share the whole batch."""
    oov_words: Sequence[Sequence[str]] = ()
    """Of each example, what ids from V on stand for; nothing for an arm that does not copy."""
    given: Bool[Tensor, "B T"] | None = None
    """Where tokens of ``target_output`` are given to the decoder in decoding, too; None where the data gives none."""

    @property
    def labels(self) -> Int64[Tensor, "B T"]:
        """``target_output`` with ``PAD`` in place of given tokens: what the loss and the measures count."""
        return self.target_output if self.given is None else self.target_output.masked_fill(self.given, PAD)

    @property
    def given_tokens(self) -> Int64[Tensor, "B T"] | None:
        """The given tokens, and ``PAD`` in place of all others."""
        return None if self.given is None else self.target_output.masked_fill(~self.given, PAD)

    @property
    def examples(self) -> int:
        """B; 0 if this is a placeholder for a process without an example in this batch."""
        return len(self.index) if self.target_tokens else 0

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch with its token tensors on ``device``."""
        return self._with_tokens(lambda tokens: tokens.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch with its token tensors in pinned memory, for asynchronous transfers to the GPU."""
        return self._with_tokens(Tensor.pin_memory)

    def _with_tokens(self, move: Callable[[Tensor], Tensor]) -> Batch:
        names = ["source", "target_input", "target_output", *([] if self.given is None else ["given"])]
        moved: dict[str, Any] = {name: move(getattr(self, name)) for name in names}
        return replace(self, **moved)


class EncodedSplit:
    """A prepared split; indexing it with a list of rows makes their batch, or the share of process ``rank`` in it.

    Token ids are read from the memory-mapped Arrow file; only those of the batch are copied. ``with_eos`` says whether
    targets end with ``<eos>``, and ``extended`` is the vocabulary of an arm that copies.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        rank: int = 0,
        ranks: int = 1,
        with_eos: bool = True,
        extended: ExtendedVocabulary | None = None,
    ) -> None:
        self._dataset = dataset
        self._with_eos = with_eos
        self._extended = extended
        self._rank = rank
        self._ranks = ranks
        has_images = PIXELS in dataset.column_names
        self._source = ImageColumn(dataset) if has_images else _IdColumn(dataset, "source_ids")
        self._target = _IdColumn(dataset, "target_ids")
        self._given = _IdColumn(dataset, GIVEN) if GIVEN in dataset.column_names else None
        self.source_lengths: Int32[np.ndarray, " N"] = self._source.lengths
        """Tokens of each source, or patches of each image."""
        self.target_lengths: Int32[np.ndarray, " N"] = self._target.lengths
        """Tokens of each target, without ``<eos>``."""
        self._scored_lengths = self.target_lengths - (0 if self._given is None else self._given.lengths)

    def row_location(self, row: int) -> str:
        """Split and rows in the user's data from which row ``row`` was made, for error messages."""
        example_id = self._dataset[row]["id"]
        return f"{example_id.partition('-')[0]} {describe_rows(example_id)}"

    def __len__(self) -> int:
        return len(self.source_lengths)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """The batch of ``rows`` in order. With several processes, each gets every ``ranks``-th row.

        All processes must take part in every batch. A process without a row gets a placeholder: one row whose target is
        all padding (``target_tokens`` 0), so that it contributes nothing to any sum.
        """
        whole = np.asarray(rows, dtype=np.int64)
        index = whole[self._rank :: self._ranks]
        if placeholder := len(index) == 0:
            index = whole[:1]
        source_lengths, source = self._source.padded(index)
        target_lengths, target = self._target.padded(index)
        edge = np.full((len(index), 1), PAD, dtype=np.int64)
        of_loss = target
        oov_words: list[list[str]] = []
        if self._extended is not None:
            source, of_loss, oov_words = self._extend(index, source, target, target_lengths)
        target_output = np.hstack([of_loss, edge]) if self._with_eos else of_loss.copy()
        if self._with_eos:
            target_output[np.arange(len(index)), target_lengths] = EOS
        if placeholder:
            target_output[:] = PAD
        edge[:] = BOS
        return Batch(
            source=torch.from_numpy(source),
            source_lengths=torch.from_numpy(source_lengths),
            target_input=torch.from_numpy(np.hstack([edge, target if self._with_eos else target[:, :-1]])),
            target_output=torch.from_numpy(target_output),
            index=torch.from_numpy(index),
            target_tokens=0 if placeholder else self._labels_in(index),
            whole_tokens=self._labels_in(whole),
            whole_examples=len(whole),
            ranks=self._ranks,
            oov_words=oov_words,
            given=None if self._given is None else self._given.marked(index, target_output.shape),
        )

    def _extend(
        self,
        index: Int64[np.ndarray, " B"],
        source: Int64[np.ndarray, "B S"],
        target: Int64[np.ndarray, "B T"],
        target_lengths: Int64[np.ndarray, " B"],
    ) -> tuple[Int64[np.ndarray, "B 2 S"], Int64[np.ndarray, "B T"], list[list[str]]]:
        """The sources with their ids in the extended vocabulary, the targets in these ids, and what they stand for."""
        assert self._extended is not None
        in_target, is_oov = self._extended.look_up(source)
        target = target.copy()
        oov_words: list[list[str]] = [[] for _ in index]
        rows = np.flatnonzero(is_oov.any(axis=1)).tolist()
        texts = self._dataset[index[rows].tolist()] if rows else {"source": [], "target": []}
        for row, text, target_text in zip(rows, texts["source"], texts["target"], strict=True):
            S, T = int(self.source_lengths[index[row]]), int(target_lengths[row])
            in_target[row, :S], oov_words[row] = self._extended.extend_source(source[row, :S].tolist(), text)
            target[row, :T] = self._extended.extend_target(target[row, :T].tolist(), target_text, oov_words[row])
        return np.stack([source, in_target], axis=1), target, oov_words

    def _labels_in(self, rows: Int64[np.ndarray, " B"]) -> int:
        return int(self._scored_lengths[rows].sum()) + len(rows) * self._with_eos

    def __reduce__(self) -> tuple[Any, tuple[Dataset]]:
        # Another process maps the file itself; pickling the views would copy them.
        same: dict[str, Any] = {"rank": self._rank, "ranks": self._ranks, "with_eos": self._with_eos}
        same["extended"] = self._extended
        return partial(EncodedSplit, **same), (self._dataset,)

    def plan(self, batch_tokens: int, key: str) -> Batches:
        """Plan the batches, without saying which example exceeds the budget."""
        return self._source.plan(self.target_lengths, batch_tokens, key)


class _IdColumn:
    """A column of token id lists, as views into the Arrow file."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        chunks = [chunk for chunk in dataset.data[name].chunks if len(chunk)]
        self._values = [chunk.values.to_numpy() for chunk in chunks]
        self._offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        self._first = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        self.lengths: Int32[np.ndarray, " N"] = np.concatenate([np.diff(o) for o in self._offsets])

    def plan(self, target_lengths: Int[np.ndarray, " N"], batch_tokens: int, key: str) -> TokenBudgetBatches:
        """The batches of the split, whose sources these are."""
        return TokenBudgetBatches(
            source_lengths=self.lengths, target_lengths=target_lengths, batch_tokens=batch_tokens, key=key
        )

    def padded(self, index: Int64[np.ndarray, " B"]) -> tuple[Int64[np.ndarray, " B"], Int64[np.ndarray, "B L"]]:
        """Lengths and padded ids of the rows ``index``."""
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

    def marked(self, index: Int64[np.ndarray, " B"], shape: tuple[int, ...]) -> Bool[Tensor, "B T"]:
        """True at the positions that the rows ``index`` hold."""
        lengths, positions = self.padded(index)
        mask = np.zeros(shape, dtype=bool)
        row, number = np.nonzero(np.arange(positions.shape[1]) < lengths[:, None])
        mask[row, positions[row, number]] = True
        return torch.from_numpy(mask)


class TokenBudgetBatches:
    """Batches of rows of similar length, as many as satisfy ``B * max(S, T) <= batch_tokens``, padding included.

    Rows are sorted by length and split into batches. For training, rows of equal length are shuffled in each epoch, and
    then the batches. The sorted lengths do not depend on the epoch, so all epochs have the same number of batches.
    """

    def __init__(
        self,
        *,
        source_lengths: Int[np.ndarray, " N"],
        target_lengths: Int[np.ndarray, " N"],
        batch_tokens: int,
        key: str = "batch_tokens",
    ) -> None:
        """Plan the batches. ``target_lengths`` do not count ``<eos>``; ``key`` is the config key of ``batch_tokens``.

        Raises:
            InputError: a single example exceeds the budget.
        """
        self._longer = np.maximum(source_lengths, target_lengths + 1)
        self._other = np.minimum(source_lengths, target_lengths + 1)
        longest = int(self._longer.max())
        if longest > batch_tokens:
            raise InputError(f"{key}={batch_tokens} is smaller than the longest example, {longest} tokens")
        self._boundaries = _boundaries(np.sort(self._longer), batch_tokens)

    def __len__(self) -> int:
        return len(self._boundaries) - 1

    def in_order(self) -> list[NDArray[np.int64]]:
        """Every row once, sorted by length, for evaluation."""
        return self._split(np.lexsort((self._other, self._longer)))

    def shuffled(self, *, seed: int, epoch: int) -> list[NDArray[np.int64]]:
        """Every row once, in an order that depends on ``seed`` and ``epoch`` only."""
        draw = np.random.default_rng([seed, epoch])
        batches = self._split(np.lexsort((draw.random(len(self._longer)), self._other, self._longer)))
        return [batches[i] for i in draw.permutation(len(batches))]

    def _split(self, rows: Int64[np.ndarray, " N"]) -> list[NDArray[np.int64]]:
        return [rows[first:last] for first, last in pairwise(self._boundaries)]


Batches = TokenBudgetBatches | PatchBudgetBatches
"""Which rows are batched together, in which order."""


def _boundaries(lengths: Int[np.ndarray, " N"], batch_tokens: int) -> list[int]:
    """Boundaries of the largest batches within the budget, for rows of ascending ``lengths``."""
    boundaries = [0]
    steps = np.flatnonzero(np.diff(lengths)) + 1
    for first, end in pairwise([0, *steps.tolist(), len(lengths)]):  # rows of equal length
        most = batch_tokens // int(lengths[first])
        while (row := max(first, boundaries[-1] + most)) < end:
            boundaries.append(row)
    return [*boundaries, len(lengths)]


def plan_batches(split: EncodedSplit, batch_tokens: int, key: str) -> Batches:
    """Plan the batches of ``split``; ``key`` is the config key of ``batch_tokens``.

    Raises:
        InputError: a single example exceeds the budget; names its split and row.
    """
    try:
        return split.plan(batch_tokens, key)
    except InputError as error:
        longest = int(np.maximum(split.source_lengths, split.target_lengths + 1).argmax())
        raise InputError(f"{error} ({split.row_location(longest)})") from None


@dataclass(kw_only=True, eq=False)
class TrainingLoader:
    """Training batches, epoch after epoch; it resumes exactly where it stopped.

    ``state_dict`` holds the number of completed epochs and of batches yielded in the current one. Lightning saves it in
    checkpoints. Batches that workers have prefetched do not count.
    """

    split: EncodedSplit
    batches: Batches
    seed: int
    workers: int
    pin_memory: bool
    _epoch: int = field(default=0, init=False)
    _batch: int = field(default=0, init=False)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        """The remaining batches of the current epoch."""
        rows = self.batches.shuffled(seed=self.seed, epoch=self._epoch)
        for batch in make_loader(self.split, rows[self._batch :], workers=self.workers, pin_memory=self.pin_memory):
            self._batch += 1
            if self._batch == len(rows):
                self._epoch, self._batch = self._epoch + 1, 0
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The position to resume from."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume from ``state``."""
        self._epoch, self._batch = state["epoch"], state["batch"]


def make_loader(
    split: EncodedSplit, rows: list[NDArray[np.int64]], *, workers: int, pin_memory: bool
) -> DataLoader[Batch]:
    """A loader of the batches of ``rows``, in order."""
    return DataLoader(
        split,  # type: ignore[arg-type]  # with batch_size=None, it is indexed by lists of rows
        sampler=rows,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        # Without one of its own, a loader draws from the global generator.
        generator=torch.Generator(),
        worker_init_fn=_exit_with_parent,
    )


def _exit_with_parent(worker: int) -> None:
    """End a worker when its run is killed; torch's own check fails under a fork server, which stays alive."""
    run = multiprocessing.parent_process()

    def wait() -> None:
        if run is not None:
            run.join()
        os._exit(1)

    in_thread(wait)
