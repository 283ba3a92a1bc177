"""How attention forms: the weights on the same validation examples whenever the updates have doubled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch

from attnspan.evaluation.attention_maps import maps_of_references
from attnspan.evaluation.loaded_run import LoadedRun
from attnspan.runs.attention_maps import AttentionMap
from attnspan.training.callbacks.learning_curve import is_looked_at
from attnspan.training.callbacks.plateau import Plateau
from attnspan.training.steps.prepare import Prepared


class AttentionOverTraining(L.Callback):
    """Hands over maps of validation examples at validations 1, 2, 4, 8, ... and at the last.

    The references are read (teacher forcing), so that all maps of an example have the same rows. The time counts as
    validation, and no random number of training is drawn.

    Args:
        prepared: the run.
        plateau: knows when training ends.
        show: takes the update and example id -> map.
    """

    def __init__(
        self, prepared: Prepared, *, plateau: Plateau, show: Callable[[int, Mapping[str, AttentionMap]], None]
    ) -> None:
        self._validation, self._plateau, self._show = prepared.data.validation, plateau, show
        self._run = LoadedRun(
            config=prepared.config,
            model=prepared.module.model,
            decoding=prepared.module.decoding,
            source_tokenizer=prepared.data.source_tokenizer,
            target_tokenizer=prepared.data.target_tokenizer,
        )
        self._due = False

    def on_validation_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """See whether this validation is one of them; when it ends, it may be known that training goes on."""
        self._due = is_looked_at(trainer, self._plateau)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the references."""
        if not self._due:
            return
        device = pl_module.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):  # positions may be drawn
            maps = maps_of_references(self._run, self._validation)
        if maps:
            self._show(trainer.global_step, maps)
