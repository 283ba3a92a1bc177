"""The cross-entropy that training minimises, with label smoothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attnspan.data.tokenizer import PAD


def cross_entropy(logits: Tensor, target: Tensor, *, label_smoothing: float, vocabulary_size: int) -> Tensor:
    """The sum over the tokens of a batch in nats, padding left out.

    Label smoothing spreads its share over the V ids of the vocabulary. What a decoder that copies adds to them has
    another size in each batch, and many of these ids stand for nothing.

    Args:
        logits: [B, T, W], W at least V.
        target: [B, T] ids below W.
        label_smoothing: share of the target probability that is spread.
        vocabulary_size: V.
    """
    logits, target = logits.flatten(0, 1), target.flatten()
    if not label_smoothing or logits.size(-1) == vocabulary_size:
        return F.cross_entropy(logits, target, ignore_index=PAD, label_smoothing=label_smoothing, reduction="sum")
    of_target = F.cross_entropy(logits, target, ignore_index=PAD, reduction="sum")
    spread = -torch.log_softmax(logits, dim=-1)[:, :vocabulary_size].mean(dim=-1)
    return (1 - label_smoothing) * of_target + label_smoothing * spread.masked_fill(target == PAD, 0.0).sum()
