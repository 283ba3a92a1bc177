"""The running averages that validation logs."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class Mean(Metric):
    """A sum over tokens, or sequences, divided by their number, over all batches and devices.

    Batches of different sizes count by what is in them, so the result does not depend on how examples were batched.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, total: Tensor, count: Tensor | int) -> None:
        """Add a batch: ``total`` summed over ``count`` of them (scalars)."""
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        """The mean."""
        return self.total / self.count
