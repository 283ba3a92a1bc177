"""First step: all that can be wrong with a config shows here, before a file of the run's directory is touched."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnspan.config.identity import claim
from attnspan.config.instantiate import check_optimizer
from attnspan.config.memory import check_size
from attnspan.data.extended_vocabulary import extended_vocabulary
from attnspan.data.pipeline.datamodule import DataModule
from attnspan.data.pipeline.prepare import PreparedData
from attnspan.data.pipeline.reachable import check_references
from attnspan.errors import InputError
from attnspan.models.contract import check_contract
from attnspan.runs.layout import OWN_CODE
from attnspan.runs.own_code import changed_code
from attnspan.runs.provenance import code_state
from attnspan.training.lightning_module import Seq2SeqModule, assemble_module
from attnspan.training.machine import set_up_machine
from attnspan.training.signals import Stop
from attnspan.training.trainer import make_trainer


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that is ready to begin.

    Attributes:
        config: resolved.
        data: the corpus that ``config["data"]`` describes.
        directory: of the run.
        command: that reproduces the run.
        log: takes lines for people.
        module: model and training; its weights are drawn.
        loaders: of the three splits.
        rank: of this process, from 0.
        ranks: processes of the run.
        stop: says whether the run is asked to stop.
        unreachable_references: test examples whose reference is longer than a hypothesis may become.
        code: the state of the code when the run began; the checkout may change while it trains.
        began: :func:`time.monotonic` then.
    """

    config: dict[str, Any]
    data: PreparedData
    directory: Path
    command: str
    log: Callable[[str], None]
    module: Seq2SeqModule
    loaders: DataModule
    rank: int
    ranks: int
    stop: Stop
    unreachable_references: int
    code: dict[str, str | None]
    began: float


def prepare(
    config: dict[str, Any], *, data: PreparedData, directory: Path, command: str, log: Callable[[str], None]
) -> Prepared:
    """Build the run.

    Raises:
        InputError: the directory holds another run, the config does not fit, validation has references that are longer
            than a hypothesis may become, or the user's own code changes meanwhile.
    """
    began = time.monotonic()
    claim(directory, config, data_fingerprint=data.fingerprint)
    code = code_state()
    set_up_machine(config)
    check_size(
        config,
        source_vocabulary_size=data.source_tokenizer.vocabulary_size,
        target_vocabulary_size=len(data.target_tokenizer),
    )
    module = assemble_module(config, data)
    if OWN_CODE in config:
        if changed := changed_code(config, config[OWN_CODE]):  # it would train under the id of the old code
            raise InputError(f"{', '.join(changed)} changed while the run was starting; give the command again")
        check_contract(module.model)
    check_optimizer(config, module.parameters())
    trainer = make_trainer(config, logger=False)
    rank, ranks = trainer.global_rank, trainer.world_size
    loaders = DataModule(
        prepared=data,
        seed=config["seed"],
        **config["loader"],
        rank=rank,
        ranks=ranks,
        with_eos=config["eos_in_training"],
        extended=extended_vocabulary(module.model, source=data.source_tokenizer, target=data.target_tokenizer),
    )
    if rank:  # the weights are drawn; from here on each process draws its own dropout
        torch.manual_seed(int(np.random.SeedSequence([config["seed"], rank]).generate_state(1)[0]))
    unreachable = check_references(data, module.decoding.limit)
    if unreachable.count:
        log(str(unreachable))
    return Prepared(
        config=config,
        data=data,
        directory=directory,
        command=command,
        log=log,
        module=module,
        loaders=loaders,
        rank=rank,
        ranks=ranks,
        stop=Stop(follows=rank > 0),
        unreachable_references=unreachable.count,
        code=code,
        began=began,
    )
