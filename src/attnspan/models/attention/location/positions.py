"""Positions and weights of the step before, as numbers that scores with memory compute with."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from attnspan.errors import SettingError, check_counts


def wide(values: Tensor) -> Tensor:
    """In float32 at least: bfloat16 cannot represent every position above 256."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def first_position(keys: Float[Tensor, "B S _"]) -> Float[Tensor, "B S"]:
    """All weight at position 1."""
    weights = wide(keys.new_zeros(keys.shape[:2]))
    weights[:, 0] = 1.0
    return weights


def all_positions(keys: Float[Tensor, "B S _"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B S"]:
    """The same weight at every real position."""
    return mask.to(wide(keys).dtype) / mask.sum(dim=1, keepdim=True)


def log_prior(prior: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
    """log m, finite where m = 0: softmax(e + log m) is m softmax(e), normalised, and never 0/0."""
    return prior.clamp(min=torch.finfo(prior.dtype).tiny).log()


def log_weights(scores: Float[Tensor, "B 1 S"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B 1 S"]:
    """log softmax over the real positions; 0 in padding, where a score says nothing and must have no gradient."""
    padding = ~mask.unsqueeze(1)
    return torch.log_softmax(wide(scores).masked_fill(padding, -torch.inf), dim=-1).masked_fill(padding, 0.0)


def around(weights: Float[Tensor, "B S"], width: int) -> Float[Tensor, "B S width"]:
    """The weights around each position j, from j - (width - 1) / 2 on; 0 beyond the ends."""
    return F.pad(weights, (width // 2, width // 2)).unfold(1, width, 1)


def check_filters(*, filters: int, width: int) -> None:
    """Raise :class:`SettingError` if there is no such number of filters, or if they have no middle."""
    check_counts(filters=filters, width=width)
    if width % 2 == 0:
        raise SettingError("width", f"must be odd, so that a filter has a middle, not {width}")
