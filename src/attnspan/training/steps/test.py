"""Third step: decode the test split once, with the checkpoint that validation chose."""

from __future__ import annotations

from dataclasses import dataclass

from attnspan.runs.checkpoint_file import read_checkpoint
from attnspan.runs.layout import BEST
from attnspan.runs.records import Record
from attnspan.training.distributed import ending_together
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
    with ending_together(trained.trainer):
        trained.trainer.test(prepared.module, datamodule=prepared.loaders, verbose=False)
    records = trained.recorder.records() if prepared.rank == 0 else []
    if prepared.rank == 0 and len(records) != prepared.data.test.num_rows:
        raise RuntimeError(f"{len(records)} of {prepared.data.test.num_rows} test examples were decoded")
    return Tested(trained=trained, best_update=best["global_step"], records=records)
