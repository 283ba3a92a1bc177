"""Small models of every arm, as the configs build them."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from attnspan.config.config_files import conf_directory
from attnspan.config.instantiate import assemble_model
from attnspan.models.memory import Memory
from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import ARMS, Compose

SOURCE_VOCABULARY, TARGET_VOCABULARY = 11, 9
_TEXTS = {arm: (conf_directory() / "decoder" / f"{arm}.yaml").read_text(encoding="utf-8") for arm in ARMS}

MECHANISMS = (
    "bi_relative",
    "dynamic_convolution",
    "forward",
    "forward_agent",
    "gmm_v1",
    "gmm_v2b",
    "loc_attn",
    "location_convolution",
    "mix",
    "mono",
    "one_step",
)
"""Arms that :mod:`tests.models.test_mechanisms` has the equations of."""

HARD = ("hard_nonmonotonic", "hard_monotonic", "hard_monotonic_first_order")
"""Arms that :mod:`tests.models.test_exact_hard_attention` has the sums of."""

FEEDING = [arm for arm in ARMS if yaml.safe_load(_TEXTS[arm]).get("input_feeding") is False]
"""Arms with the option of input feeding, which their files leave out."""

VARIANTS = [
    ("plain", "rnn=lstm", "rnn.layers=2"),
    ("plain_every_step", "rnn=lstm", "encoder=unidirectional"),
    ("bahdanau", "decoder.fused=false"),
    ("bahdanau", "rnn=lstm"),
    ("bahdanau", "rnn.layers=2"),
    ("bahdanau", "rnn=lstm", "rnn.layers=2", "encoder=unidirectional", "encoder.reverse=true"),
    ("coverage", "rnn=lstm", "rnn.layers=2"),
    ("luong_general_feeding", "rnn=lstm"),
    ("luong_general_feeding", "decoder.fused=false"),
    ("luong_local_m", "decoder.window.half_width=1"),
    ("luong_local_p", "decoder.window.half_width=2", "rnn.layers=2", "decoder.input_feeding=true"),
    ("luong_location", "decoder.score.max_length=2", "rnn.layers=2"),
    ("coverage", "decoder.heads=2"),
    ("monotonic", "decoder.window.offset=0.3"),
    ("hard_monotonic", "rnn=lstm", "rnn.layers=2", "decoder/score@decoder.transition.score=additive"),
    ("hard_monotonic_first_order", "decoder.transition.width=1"),
    ("mocha", "decoder.window.offset=0.3", "decoder.window.width=2", "decoder.heads=2"),
    ("luong_local_p", "decoder.heads=2", "decoder.window.half_width=1", "decoder/normaliser=asentmax"),
    ("bahdanau_pointer", "decoder.fused=false", "rnn=lstm", "rnn.layers=2"),
    ("bahdanau_2015", "+decoder/pointer=pointer_generator"),
    ("coverage", "+decoder/pointer=pointer_generator", "decoder.heads=2"),
    ("luong_pointer", "decoder/normaliser=sparsemax"),
    ("transformer", "encoder/positions=t5", "decoder/positions=rotary"),
    ("transformer", "encoder/positions=rotary", "decoder/positions=t5"),
    ("transformer", "encoder/positions=alibi", "decoder/positions=learned", "decoder.positions.max_length=3"),
    ("transformer", "encoder/positions=learned", "decoder/positions=randomised"),
    ("bahdanau", "decoder/normaliser=entmax15", "decoder.fused=false"),
    ("luong_location", "decoder/normaliser=asentmax", "decoder.score.max_length=2"),
    ("transformer", "decoder/normaliser=entmax", "encoder/normaliser=length_scaled"),
]
"""Settings under which something else happens than in the arms' own files."""

PARALLEL_CELLS = [
    ("plain", "rnn=min_gru", "rnn.layers=2"),
    ("plain", "rnn=mlstm", "rnn.cell.head_size=2", "rnn.layers=2"),
    ("plain_every_step", "rnn=min_lstm", "encoder=unidirectional"),
    ("bahdanau", "rnn=delta_net", "rnn.cell.head_size=4"),
    ("luong_general_feeding", "rnn=gated_linear_attention", "rnn.cell.head_size=4", "encoder=unidirectional"),
]
"""Arms with cells that have loops of their own, in ``test_parallel_cells.py``."""

WIRINGS = (
    [(arm,) for arm in ARMS] + [(arm, "decoder.input_feeding=true") for arm in FEEDING] + VARIANTS + PARALLEL_CELLS
)
"""Every arm as its file has it, again with input feeding, the variants, and other cells: what :func:`small` takes."""

WIRING_CASES = [
    pytest.param(wiring, id=" ".join(wiring), marks=[] if len(wiring) == 1 else [pytest.mark.slow])
    for wiring in WIRINGS
]
"""The wirings as parameters of a test: of the quick tests, every arm as its file has it."""


class FromSourceIds(Seq2Seq):
    """A model that copies, given source ids only: those of a joint vocabulary, whose last are not in the target's."""

    def encode(self, source: Tensor, lengths: Tensor) -> Memory:
        return super().encode(with_target_ids(source) if source.ndim == 2 else source, lengths)


def with_target_ids(source: Tensor) -> Tensor:
    """Sources [B, S] with their ids in the extended vocabulary, [B, 2, S]."""
    rows = []
    for row in source.tolist():
        beyond: dict[int, int] = {}
        for token in row:
            if token >= TARGET_VOCABULARY:
                beyond.setdefault(token, TARGET_VOCABULARY + len(beyond))
        rows.append([beyond.get(token, token) for token in row])
    return torch.stack([source, torch.tensor(rows, device=source.device)], dim=1)


def small_config(composed: Compose, arm: str, *overrides: str) -> dict[str, Any]:
    """The config of a small model of ``arm``."""
    return composed(f"decoder={arm}", "model.hidden_size=8", "model.embedding_size=5", *overrides)


def small(composed: Compose, arm: str, *overrides: str, seed: int = 0) -> Seq2Seq:
    """A model of ``arm`` in evaluation mode, its weights large enough that attention is not flat."""
    torch.manual_seed(seed)
    return copy.deepcopy(_built(composed, (arm, *overrides), seed, torch.get_default_dtype()))


@functools.cache
def _built(composed: Compose, wiring: tuple[str, ...], seed: int, dtype: torch.dtype) -> Seq2Seq:
    config = small_config(composed, *wiring)
    torch.manual_seed(seed)
    model = assemble_model(config, source_vocabulary_size=SOURCE_VOCABULARY, target_vocabulary_size=TARGET_VOCABULARY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    if model.decoder.copies:
        model.__class__ = FromSourceIds
    return model.eval()


def pad(rows: list[list[int]], to: int | None = None) -> tuple[Tensor, Tensor]:
    """Rows of ids as a padded tensor, and their lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.zeros(len(rows), to or int(lengths.max()), dtype=torch.long)
    for at, row in enumerate(rows):
        padded[at, : len(row)] = torch.tensor(row)
    return padded, lengths
