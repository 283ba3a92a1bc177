"""Guided attention: a second loss that says where to look. Test and validation have none of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from datasets import Dataset
from torch import Tensor

from attnspan.data.corpora.base import ALIGNMENT
from attnspan.data.pipeline.batches import Batch
from attnspan.data.tokenizer import PAD
from attnspan.errors import SettingError, check_numbers, check_switches


class Guidance(ABC):
    """A loss on the attention weights of training batches.

    Args:
        train: the prepared training split.
        weight: lambda, of this loss beside the cross-entropy in nats.
    """

    def __init__(self, *, train: Dataset, weight: float) -> None:
        check_numbers(weight=weight)
        self.weight = weight

    def __call__(self, weights: Tensor, batch: Batch, mask: Tensor) -> Tensor:
        """lambda times the sum over the examples of the batch.

        Args:
            weights: [B, T, S].
            batch: of training.
            mask: [B, S], True at real positions of the memory.
        """
        return self.weight * self.total(weights.float(), batch, mask)

    @abstractmethod
    def total(self, weights: Tensor, batch: Batch, mask: Tensor) -> Tensor:
        """The loss of the batch."""


class TokenGuidance(Guidance):
    """A loss of each target token, ``<eos>`` among them.

    Raises:
        SettingError: the sources are images.
    """

    def __init__(self, *, train: Dataset, weight: float) -> None:
        super().__init__(train=train, weight=weight)
        if "source_ids" not in train.column_names:
            raise SettingError("_target_", "guides attention to tokens, and the sources of this data are images")

    def total(self, weights: Tensor, batch: Batch, mask: Tensor) -> Tensor:
        """The sum over the target tokens."""
        return self.per_token(weights, batch).masked_fill(batch.target_output == PAD, 0.0).sum()

    @abstractmethod
    def per_token(self, weights: Tensor, batch: Batch) -> Tensor:
        """The loss of each target token, [B, T]."""


class BuildGuidance(Protocol):
    """A class of guidance with its own settings filled in (``_partial_: true`` in the config)."""

    def __call__(self, *, train: Dataset) -> Guidance:
        """Build it for a training split."""


class DiagonalGuidance(TokenGuidance):
    """sum_j alpha_tj (1 - exp(-(j/S - t/T)^2 / 2g^2)): weights off the diagonal cost (Tachibana et al. 2018, eq. 7).

    T counts ``<eos>``, and both lengths are each example's own.

    Args, besides those of :class:`Guidance`:
        width: g, as a share of the length.
        reverse: the diagonal runs from the last source token to the first.
    """

    def __init__(self, *, train: Dataset, weight: float, width: float, reverse: bool) -> None:
        super().__init__(train=train, weight=weight)
        check_switches(reverse=reverse)
        check_numbers(width=width)
        if width == 0:
            raise SettingError("width", "must be more than 0")
        self.width, self.reverse = width, reverse

    def per_token(self, weights: Tensor, batch: Batch) -> Tensor:
        """See the class."""
        device = weights.device
        S = batch.source_lengths.to(device, non_blocking=True)[:, None, None]
        T = (batch.target_output != PAD).sum(dim=1).clamp(min=1)[:, None, None]
        t = torch.arange(1, weights.size(1) + 1, device=device)[:, None]
        j = torch.arange(1, weights.size(2) + 1, device=device)
        away = (S + 1 - j if self.reverse else j) / S - t / T
        return (weights * (1 - torch.exp(-(away**2) / (2 * self.width**2)))).sum(dim=-1)


class GoldGuidance(TokenGuidance):
    """-sum_j A_tj log alpha_tj for tokens with gold links, whose rows of A sum to 1 (Chen et al. 2016, eq. 6).

    A_tj is 1 over the number of sure links of target token t. A token without links, such as ``<eos>``, costs nothing.
    Where a window, or a normaliser with zeros, has given exactly 0 to a gold position, there is no gradient.

    Raises:
        SettingError: training has no gold links.
    """

    def __init__(self, *, train: Dataset, weight: float) -> None:
        super().__init__(train=train, weight=weight)
        if ALIGNMENT not in train.column_names:
            raise SettingError(
                "_target_", "needs gold links in training: data.training_alignment=true, for data that has them"
            )
        self._links = train.select_columns([ALIGNMENT])

    def per_token(self, weights: Tensor, batch: Batch) -> Tensor:
        """See the class."""
        gold = torch.zeros(weights.shape)
        for row, text in enumerate(self._links[batch.index.tolist()][ALIGNMENT]):
            links = [link.split("-") for link in text.split() if "-" in link]  # "1p1" is only possible
            if links:
                source, target = torch.tensor([[int(i), int(j)] for i, j in links]).unbind(dim=1)
                gold[row, target, source] = 1.0
        gold = (gold / gold.sum(dim=-1, keepdim=True).clamp(min=1.0)).to(weights.device, non_blocking=True)
        return -(gold * weights.clamp(min=torch.finfo(weights.dtype).tiny).log()).sum(dim=-1)


class DoublyStochasticGuidance(Guidance):
    """sum_j (tau - sum_t alpha_tj)^2: the whole target looks at all of the source alike (Xu et al. 2015, eq. 14).

    In the paper tau is 1. But the T rows of weights sum to T, so that positions can have 1 each only if T = S. So by
    default tau = T / S, each example's own, which is the same where T = S. T counts ``<eos>``.

    Args, besides those of :class:`Guidance`:
        attention_sum: tau; None for T / S.
    """

    def __init__(self, *, train: Dataset, weight: float, attention_sum: float | None) -> None:
        super().__init__(train=train, weight=weight)
        if attention_sum is not None:
            check_numbers(attention_sum=attention_sum)
        self.attention_sum = attention_sum

    def total(self, weights: Tensor, batch: Batch, mask: Tensor) -> Tensor:
        """See the class."""
        is_token = batch.target_output != PAD
        T, S = is_token.sum(dim=1, keepdim=True), mask.sum(dim=1, keepdim=True)
        wanted = T / S if self.attention_sum is None else self.attention_sum
        received = weights.masked_fill(~is_token.unsqueeze(-1), 0.0).sum(dim=1)
        return (wanted - received).square().masked_fill(~mask | (T == 0), 0.0).sum()  # T = 0: a placeholder
