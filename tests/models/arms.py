"""Small models of every arm, as the configs build them."""

from __future__ import annotations

import torch
import yaml
from torch import Tensor

from attnspan.assemble import assemble_model
from attnspan.models.seq2seq import Seq2Seq
from attnspan.settings import conf_directory
from tests.conftest import ARMS, Compose

SOURCE_VOCABULARY, TARGET_VOCABULARY = 11, 9
_TEXTS = {arm: (conf_directory() / "decoder" / f"{arm}.yaml").read_text(encoding="utf-8") for arm in ARMS}

FEEDING = [arm for arm in ARMS if "input_feeding" in yaml.safe_load(_TEXTS[arm])]
"""Arms with the option of input feeding."""

WIRINGS = [(arm,) for arm in ARMS] + [(arm, "decoder.input_feeding=true") for arm in FEEDING]
"""Every arm as its file has it, and again with input feeding: what :func:`small` takes."""


def small(composed: Compose, arm: str, *overrides: str, seed: int = 0) -> Seq2Seq:
    """A model of ``arm`` in evaluation mode, its weights large enough that attention is not flat."""
    config = composed(f"decoder={arm}", "model.hidden_size=6", "model.embedding_size=5", *overrides)
    torch.manual_seed(seed)
    model = assemble_model(config, source_vocabulary_size=SOURCE_VOCABULARY, target_vocabulary_size=TARGET_VOCABULARY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model.eval()


def pad(rows: list[list[int]], to: int | None = None) -> tuple[Tensor, Tensor]:
    """Rows of ids as a padded tensor, and their lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.zeros(len(rows), to or int(lengths.max()), dtype=torch.long)
    for at, row in enumerate(rows):
        padded[at, : len(row)] = torch.tensor(row)
    return padded, lengths
