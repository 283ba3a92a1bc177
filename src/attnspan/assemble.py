"""A run's model, and the module around it, from its config."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from attnspan.build import build
from attnspan.data.prepare import Prepared
from attnspan.errors import InputError
from attnspan.models.seq2seq import Seq2Seq

if TYPE_CHECKING:
    from attnspan.lit import Seq2SeqModule
from attnspan.settings import SEQUENCE_ERROR_RATE


def assemble_model(config: dict[str, Any], *, source_vocabulary_size: int, target_vocabulary_size: int) -> Seq2Seq:
    """Make the model, its weights freshly drawn.

    Args:
        config: of a run, resolved.
        source_vocabulary_size: number of source tokens.
        target_vocabulary_size: V.

    Raises:
        InputError: the config's sizes or settings do not fit each other.
    """
    parts = {key: build(config, key) for key in ("encoder", "decoder", "rnn")}
    try:
        return Seq2Seq(
            **parts,
            **config["model"],
            source_vocabulary_size=source_vocabulary_size,
            target_vocabulary_size=target_vocabulary_size,
        )
    except (TypeError, ValueError, RuntimeError) as error:  # torch raises any of them for sizes that cannot be
        raise InputError(f"the model cannot be built: {str(error).splitlines()[0]}") from error


def assemble_module(config: dict[str, Any], prepared: Prepared) -> Seq2SeqModule:
    """Make the model inside the module that trains and tests it.

    Raises:
        InputError: the config's sizes or settings do not fit each other.
    """
    from attnspan.lit import Seq2SeqModule  # Lightning takes seconds to start, and who only checks can spare it

    model = assemble_model(
        config,
        source_vocabulary_size=len(prepared.source_tokenizer),
        target_vocabulary_size=len(prepared.target_tokenizer),
    )
    parts = {key: build(config, key) for key in ("search", "optimizer", "schedule")}
    return Seq2SeqModule(
        model=model,
        label_smoothing=config["label_smoothing"],
        search_in_validation=config["choose_by"] == SEQUENCE_ERROR_RATE,
        **parts,
    )


def check_optimizer(config: dict[str, Any], parameters: Iterable[Tensor]) -> None:
    """Make the optimizer and its schedule, and throw them away.

    Raises:
        InputError: they cannot be made.
    """
    optimizer, schedule = build(config, "optimizer"), build(config, "schedule")
    try:
        schedule(optimizer(parameters))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"optimizer or schedule: {str(error).splitlines()[0]}") from error
