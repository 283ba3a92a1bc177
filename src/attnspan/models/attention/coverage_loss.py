"""Coverage as a penalty: attention pays for looking where it has looked before."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def coverage_loss(weights: Float[Tensor, "B T S"], is_token: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    """sum_t sum_j min(alpha_tj, C_tj),  C_tj = sum_{t' < t} alpha_t'j  (See et al. 2017, eq. 12).

    Summed over the target tokens where ``is_token`` is True; C_1 = 0. The authors add it late in training, with
    weight 1. It also pushes against repetitions that are right.
    """
    before = weights.cumsum(dim=1) - weights
    return torch.minimum(weights, before).sum(dim=-1).masked_fill(~is_token, 0.0).sum()
