"""How the error by length changes over training: a part of validation is decoded whenever the updates have doubled."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor

from attnspan.analysis.lengths.bins import Bins
from attnspan.data.pipeline.batches import Batch
from attnspan.data.tokenizer import EOS, PAD, UNK
from attnspan.models.source_size import trimmed
from attnspan.runs.records import edit_distance, scored_tokens
from attnspan.training.callbacks.plateau import Plateau, validation_interval
from attnspan.training.callbacks.validation_by_length import column_labels, lengths_of
from attnspan.training.lightning_module import Seq2SeqModule


def is_looked_at(trainer: L.Trainer, plateau: Plateau) -> bool:
    """Whether the validation that begins is number 1, 2, 4, 8, ... or the last: more would cost more than they show."""
    number, left_over = divmod(trainer.global_step, validation_interval(trainer))
    ends = trainer.global_step in (plateau.ends_at, trainer.max_steps)
    return ends or (not left_over and number & (number - 1) == 0)


class LearningCurve(L.Callback):
    """Logs ``validation_error_rate/<side>_<lengths>``, of free-running decoding, for every bin.

    It does so at validations 1, 2, 4, 8, ... and at the last. Each costs the decoding of ``examples`` sources.

    Args:
        bins: of the length of either side in tokens; they hold every validation example.
        examples: about so many validation examples, spread evenly over the split; 0: none.
        size: of the validation split.
        plateau: knows when training ends.
    """

    def __init__(self, bins: Bins, *, examples: int, size: int, plateau: Plateau) -> None:
        self._side, self._labels = bins.axis.side, column_labels(bins)
        self._edges = torch.tensor(bins.edges[1:-1])
        self._stride = max(1, round(size / examples)) if examples else 0
        self._plateau = plateau
        self._sums = torch.empty(0)
        self._due = False

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the sums to zero: [2, bins] of edits and reference tokens."""
        self._due = bool(self._stride) and is_looked_at(trainer, self._plateau)
        self._sums = torch.zeros(2, len(self._labels), dtype=torch.float64)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """Decode the chosen examples of the batch."""
        if not self._due:
            return
        rows = (batch.index[: batch.examples] % self._stride == 0).nonzero()[:, 0]
        if not len(rows):
            return
        assert isinstance(pl_module, Seq2SeqModule)
        lengths = batch.source_lengths[rows]
        on_device = rows.to(batch.source.device)
        source, references = trimmed(batch.source[on_device], lengths), batch.target_output[on_device].tolist()
        given = None if batch.given_tokens is None else batch.given_tokens[on_device]
        places = [()] * len(rows) if given is None else [row.nonzero()[:, 0].tolist() for row in given.cpu()]
        found = pl_module.decode(source, lengths, given_tokens=given)
        hypotheses = zip(found.tokens.tolist(), found.lengths.tolist(), strict=True)
        into = torch.bucketize(lengths_of(batch, self._side).cpu()[rows], self._edges)  # (edge, next edge]
        for (tokens, length), padded, given_at, b in zip(hypotheses, references, places, into.tolist(), strict=True):
            reference = [None if token == UNK else token for token in padded if token not in (EOS, PAD)]
            written, expected = scored_tokens(tokens[:length], given_at), scored_tokens(reference, given_at)
            self._sums[0, b] += edit_distance(written, expected)  # the unknown equals nothing
            self._sums[1, b] += len(expected)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the rates of all processes; a bin without examples is left out."""
        if not self._due:
            return
        sums: Tensor = trainer.strategy.reduce(self._sums.to(pl_module.device), reduce_op="sum").cpu()
        for label, (edits, tokens) in zip(self._labels, sums.T.tolist(), strict=True):
            if tokens:
                pl_module.log(f"validation_error_rate/{label}", edits / tokens, rank_zero_only=True)
