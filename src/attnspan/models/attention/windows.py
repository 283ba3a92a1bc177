"""Windows: where may a step look? They turn scores into weights, and are an axis of their own beside the scores.

Steps t and positions s count from 1, as in the papers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor, nn


class Window(nn.Module, ABC):
    """Turns scores into weights that are never negative and are exactly 0 in padding."""

    @abstractmethod
    def forward(self, scores: Tensor, query: Tensor, step: Tensor, mask: Tensor) -> Tensor:
        """Weights [B, T, S].

        Args:
            scores: [B, T, S].
            query: [B, T, Q] that made them.
            step: [B, T] int64, t of each query.
            mask: [B, S], True at real positions.
        """


class BuildWindow(Protocol):
    """A window class with its own settings filled in (``_partial_: true`` in the config)."""

    def __call__(self, *, query_size: int) -> Window:
        """Build the window for this size."""


class GlobalWindow(Window):
    """alpha_ts = softmax_s(e_ts) over all real positions (Bahdanau et al. 2015, eq. 6; Luong et al. 2015, section 3.1).

    Args:
        query_size: Q; not used.
    """

    def __init__(self, *, query_size: int) -> None:
        super().__init__()

    def forward(self, scores: Tensor, query: Tensor, step: Tensor, mask: Tensor) -> Tensor:
        """Weights [B, T, S] that sum to 1."""
        return _softmax_inside(scores, mask.unsqueeze(1))


class LocalMonotonicWindow(Window):
    """Only positions within [p_t - D, p_t + D], p_t = t  (Luong et al. 2015, section 3.2, "local-m").

    A window that leaves the sentence is cut. Of a target that outruns its source the paper says nothing: there p_t
    rests at the last position, so that the weights always sum to 1.

    Args:
        query_size: Q; not used.
        half_width: D.

    Raises:
        ValueError: D is less than 1.
    """

    def __init__(self, *, query_size: int, half_width: int) -> None:
        super().__init__()
        _check(half_width)
        self.half_width = half_width

    def forward(self, scores: Tensor, query: Tensor, step: Tensor, mask: Tensor) -> Tensor:
        """Weights [B, T, S] that sum to 1."""
        centre = torch.minimum(step, mask.sum(dim=1, keepdim=True))
        away = _positions(mask) - centre.unsqueeze(-1)
        return _softmax_inside(scores, mask.unsqueeze(1) & (away.abs() <= self.half_width))


class LocalPredictiveWindow(Window):
    """The query says where to look: p_t = S sigmoid(v_p^T tanh(W_p h_t))  (Luong et al. 2015, eq. 9, "local-p").

    a_t(s) = softmax_s(e_ts) exp(-(s - p_t)^2 / (2 sigma^2)) within [p_t - D, p_t + D], with sigma = D/2  (eq. 10). The
    softmax is taken inside the window, and as in the paper nothing brings the sum of the products back to 1.

    Args:
        query_size: Q.
        half_width: D.

    Raises:
        ValueError: D is less than 1, and a window could fall between two positions.
    """

    def __init__(self, *, query_size: int, half_width: int) -> None:
        super().__init__()
        _check(half_width)
        self.half_width = half_width
        self.hidden = nn.Linear(query_size, query_size, bias=False)  # W_p
        self.position = nn.Linear(query_size, 1, bias=False)  # v_p

    def forward(self, scores: Tensor, query: Tensor, step: Tensor, mask: Tensor) -> Tensor:
        """Weights [B, T, S] that sum to at most 1."""
        length = mask.sum(dim=1).view(-1, 1, 1)  # S of each example
        # Positions need more digits than bfloat16 has: above 256 it knows only every second one.
        where = self.position(torch.tanh(self.hidden(query))).to(torch.promote_types(query.dtype, torch.float32))
        away = _positions(mask) - length * torch.sigmoid(where)
        weights = _softmax_inside(scores, mask.unsqueeze(1) & (away.abs() <= self.half_width))
        return weights * torch.exp(-2 * (away / self.half_width) ** 2)  # 1 / (2 sigma^2) = 2 / D^2


def _check(half_width: int) -> None:
    if half_width < 1:
        raise ValueError(f"decoder.window.half_width={half_width} must be at least 1")


def _positions(mask: Tensor) -> Tensor:
    """1 ... S."""
    return torch.arange(1, mask.size(1) + 1, device=mask.device)


def _softmax_inside(scores: Tensor, inside: Tensor) -> Tensor:
    """Softmax over the positions ``inside`` (at least one a row); exactly 0 elsewhere."""
    return torch.softmax(scores.masked_fill(~inside, -torch.inf), dim=-1)
