"""What goes on beside training: status, cost, and the records of the test."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from torch import Tensor

from attnspan.alignment import Gold, attention_columns
from attnspan.data.batching import Batch
from attnspan.data.corpus import ALIGNMENT
from attnspan.data.prepare import Prepared
from attnspan.data.tokenization import UNK
from attnspan.errors import NotFiniteError
from attnspan.lit import Seq2SeqModule, Tested
from attnspan.metrics import edits, is_repeating
from attnspan.ranks import gather
from attnspan.records import Record
from attnspan.status import RUNNING, TESTING, TRAINING, VALIDATING, Status

_NOTHING = -1
"""No token's id."""


class Reporter(L.Callback):
    """Tells at most once a second how the run is getting on.

    Only then is the loss brought to the CPU, so that a GPU is not made to wait at every update.

    Args:
        report: takes the status.
        began: when the run began, :func:`time.monotonic`.
    """

    EVERY = 1.0
    """Seconds between two reports."""

    def __init__(self, *, report: Callable[[Status], None], began: float) -> None:
        self._report = report
        self._began = began
        self._last = -math.inf
        self._start = 0.0
        self._before = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock that estimates the time left."""
        self._start, self._before = time.monotonic(), trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Report the update and its loss.

        Raises:
            NotFiniteError: the loss is not a number any more.
        """
        if not self._due(trainer, final=trainer.global_step == trainer.max_steps):
            return
        loss = float(trainer.callback_metrics["train/loss"])
        if not math.isfinite(loss):
            raise NotFiniteError(
                f"the loss is {loss} at update {trainer.global_step}; a smaller optimizer.lr or "
                "trainer.gradient_clip_val may help"
            )
        self._tell(trainer, TRAINING, trainer.global_step, trainer.max_steps, since=self._start, loss=loss)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Say that the run is validating."""
        if self._due(trainer):
            self._tell(trainer, VALIDATING, batch_idx + 1, int(sum(trainer.num_val_batches)), since=None)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock anew."""
        self._start, self._before, self._last = time.monotonic(), 0, -math.inf

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Report the test batches done."""
        if self._due(trainer):
            self._tell(trainer, TESTING, batch_idx + 1, int(sum(trainer.num_test_batches)), since=self._start)

    def _due(self, trainer: L.Trainer, *, final: bool = False) -> bool:
        return trainer.is_global_zero and (final or time.monotonic() - self._last >= self.EVERY)

    def _tell(
        self, trainer: L.Trainer, phase: str, done: int, total: int, *, since: float | None, loss: float | None = None
    ) -> None:
        self._last = time.monotonic()
        now_done = done - self._before  # without what was done before an interruption
        remaining = (self._last - since) / now_done * (total - done) if since is not None and now_done else None
        self._report(
            Status(
                state=RUNNING,
                phase=phase,
                done=done,
                total=total,
                update=trainer.global_step,
                updates=trainer.max_steps,
                loss=loss,
                seconds=self._last - self._began,
                remaining=remaining,
            )
        )


class WholeData(L.Callback):
    """Ends a run on data that turns out to be damaged, before it has written or measured anything.

    Args:
        prepared: the corpus, whose files may still be being read through.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """See whether that is done.

        Raises:
            InputError: there is damage; so below.
        """
        self._prepared.refuse_damaged(at_once=True)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Wait until it is done."""
        self._prepared.refuse_damaged(at_once=False)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Wait until it is done."""
        self._prepared.refuse_damaged(at_once=False)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Wait until it is done."""
        self._prepared.refuse_damaged(at_once=False)


class Cost(L.Callback):
    """Counts target tokens and the seconds that they took, over all parts of a run that was interrupted.

    Args:
        began: when this part of the run began, :func:`time.monotonic`.
    """

    def __init__(self, *, began: float) -> None:
        self._began = began
        self.train_tokens = 0
        self.train_seconds = 0.0
        self.validation_seconds = 0.0
        self.test_seconds = 0.0
        self._start = 0.0
        self._validation_start = 0.0

    @property
    def wall_seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def state_dict(self) -> dict[str, Any]:
        """All that was counted so far."""
        self._look_at_the_clock()
        names = ("train_tokens", "train_seconds", "validation_seconds", "wall_seconds")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Count on from ``state``."""
        self.train_tokens = state["train_tokens"]
        self.train_seconds = state["train_seconds"]
        self.validation_seconds = state["validation_seconds"]
        self._began -= state["wall_seconds"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock, where it was stopped."""
        self._start = time.monotonic() - self.train_seconds - self.validation_seconds

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the batch."""
        self.train_tokens += batch.whole_tokens

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._validation_start = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self.validation_seconds += time.monotonic() - self._validation_start

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        self.train_seconds = time.monotonic() - self._start - self.validation_seconds  # validation is not training

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock, where it was stopped."""
        self._start = time.monotonic() - self.test_seconds

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at the clock."""
        self.test_seconds = time.monotonic() - self._start


class Recorder(L.Callback):
    """Makes a record of every test example.

    Args:
        prepared: the corpus, for texts and tokens.
        run_id: of the run.
        arm: of the run.
        data: name of the data.
        seed: of the run.
    """

    def __init__(self, *, prepared: Prepared, run_id: str, arm: str, data: str, seed: int) -> None:
        self._prepared = prepared
        self._run: dict[str, Any] = {"run_id": run_id, "arm": arm, "data": data, "seed": seed}
        self._records: dict[int, Record] = {}
        self.decoded_tokens = 0

    def records(self) -> list[Record]:
        """Return the records in the order of the test split."""
        return [self._records[row] for row in sorted(self._records)]

    def decoded(self) -> dict[str, Any]:
        """All that was decoded so far, as plain things."""
        records = {row: asdict(record) for row, record in self._records.items()}
        return {"records": records, "decoded_tokens": self.decoded_tokens}

    def go_on_with(self, decoded: dict[str, Any]) -> None:
        """Count what an earlier process has ``decoded``.

        Raises:
            TypeError: its records have other columns.
        """
        self._records = {row: Record(**record) for row, record in decoded["records"].items()}
        self.decoded_tokens = decoded["decoded_tokens"]

    @property
    def has_records(self) -> bool:
        """Whether there is anything to keep."""
        return bool(self._records)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Turn the batch's tensors into records."""
        assert isinstance(outputs, Tested)
        if not batch.examples:
            return  # the other processes have them all
        found = outputs.hypotheses
        rows = batch.index.tolist()
        examples = self._prepared.test[rows]
        columns = zip(
            rows,
            examples["id"],
            examples["source"],
            examples["source_ids"],
            examples["target"],
            examples["target_ids"],
            _lists(found.tokens, found.lengths),
            found.truncated.tolist(),
            outputs.nll.tolist(),
            outputs.correct.tolist(),
            outputs.exact.tolist(),
            _attention(outputs.weights, examples),
            strict=True,
        )
        for row, name, source, source_ids, target, target_ids, hypothesis, cut, nll, correct, exact, seen in columns:
            # A symbol that training never had equals nothing, the unknown symbol of a hypothesis included.
            reference = [_NOTHING if token == UNK else token for token in target_ids]
            if row not in self._records:  # another process may not have had its share of the batch kept
                self.decoded_tokens += len(hypothesis)
            self._records[row] = Record(
                **self._run,
                example_id=name,
                source_length=len(source_ids),
                target_length=len(target_ids),
                nll=nll,
                target_tokens=len(target_ids) + 1,
                tokens_correct=correct,
                exact_match=exact,
                edits=edits(hypothesis, reference),
                empty=not hypothesis,
                truncated=cut,
                repeating=is_repeating(hypothesis, target_ids),
                source=source,
                hypothesis=self._prepared.target_tokenizer.decode(hypothesis),
                reference=target,
                **seen,
            )

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Bring together what several processes have recorded.

        Raises:
            RuntimeError: two of them had the same example.
        """
        parts = gather((self._records, self.decoded_tokens))
        self._records = {row: record for records, _ in parts for row, record in records.items()}
        if len(self._records) != sum(len(records) for records, _ in parts):
            raise RuntimeError("a test example was decoded by two processes")
        self.decoded_tokens = sum(tokens for _, tokens in parts)


def _lists(tokens: Tensor, lengths: Tensor) -> list[list[int]]:
    """Rows of tokens [B, T] cut to their lengths [B]."""
    return [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]


def _attention(weights: Tensor | None, examples: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """The columns about attention of each example, from weights [B, T+1, S] with padding and <eos>."""
    if weights is None:
        yield from ({} for _ in examples["id"])
        return
    texts = examples.get(ALIGNMENT) or [None] * len(weights)
    rows = zip(
        weights.cpu().double().numpy(),
        examples["id"],
        examples["source_ids"],
        examples["target_ids"],
        texts,
        strict=True,
    )
    for padded, name, source_ids, target_ids, text in rows:
        S, T = len(source_ids), len(target_ids)
        gold = None if text is None else Gold.read(text, where=name, source_length=S, target_length=T)
        yield attention_columns(padded[:T, :S], gold)


def parameter_count(module: Seq2SeqModule) -> int:
    """Trainable numbers in the model."""
    return sum(parameter.numel() for parameter in module.model.parameters() if parameter.requires_grad)


def peak_memory_mb() -> float:
    """Most memory that this process has held so far, in MB; the GPU's where it has one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
