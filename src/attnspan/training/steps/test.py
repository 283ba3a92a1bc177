"""Third step: decode the test split once, with the checkpoint that validation chose."""

from __future__ import annotations

from dataclasses import dataclass

import lightning as L

from attnspan.data.pipeline.datamodule import DecodedSplit
from attnspan.runs.checkpoint_file import read_checkpoint
from attnspan.runs.layout import BEST
from attnspan.runs.records import Record
from attnspan.training.callbacks.recorder import Recorder
from attnspan.training.distributed import ending_together
from attnspan.training.lightning_module import Seq2SeqModule
from attnspan.training.steps.fit import Trained


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A run whose test split is decoded.

    Attributes:
        trained: the run; its model has the best weights.
        best_update: after which they were saved.
        records: of all test examples, in the order of the split; empty in processes other than the first.
    """

    trained: Trained
    best_update: int
    records: list[Record]


def test(trained: Trained) -> Tested:
    """Load the best weights and decode the test split.

    Raises:
        InputError: ``best.ckpt`` cannot be read, or the data turns out to be damaged.
        Interrupted: the run was asked to stop.
        RuntimeError: an example was not decoded.
    """
    prepared = trained.prepared
    best = read_checkpoint(prepared.directory / BEST)
    prepared.module.load_state_dict(best["state_dict"])
    examples = prepared.data.test.num_rows
    records = decode_split(trained.trainer, prepared.module, prepared.loaders, trained.recorder, examples=examples)
    return Tested(trained=trained, best_update=best["global_step"], records=records)


def decode_split(
    trainer: L.Trainer, module: Seq2SeqModule, split: DecodedSplit, recorder: Recorder, *, examples: int
) -> list[Record]:
    """Decode a split of so many ``examples``, for the test of a run and for an evaluation.

    Returns:
        The records of all examples, in the order of the split; nothing in processes other than the first.

    Raises:
        InputError: the data turns out to be damaged.
        Interrupted: the run was asked to stop.
        RuntimeError: an example was not decoded.
    """
    with ending_together(trainer):
        trainer.test(module, datamodule=split, verbose=False)
    if trainer.global_rank:
        return []
    records = recorder.records()
    if len(records) != examples:
        raise RuntimeError(f"{len(records)} of {examples} test examples were decoded")
    return records
