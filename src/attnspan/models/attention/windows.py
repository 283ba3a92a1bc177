"""Windows: which positions may a step attend to? They limit the normaliser, independently of the score.

Steps t and positions s count from 1, as in the papers. A window that remembers earlier steps also has ``start`` and
``remember``, and sets ``remembers``, as a score does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from attnspan.errors import check_counts
from attnspan.models.attention.step import AttentionStep
from attnspan.models.recurrence.recurrence import State


class Window(nn.Module, ABC):
    """Says over which positions the weights of a step are spread."""

    remembers = False
    """Earlier weights move the window, so that each step waits for the one before."""
    sums_to_one = True
    """Weights that summed to 1 still do so."""

    def __init__(self, *, query_size: int, memory_size: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(
        self, query: Float[Tensor, "B T Q"], step: Int[Tensor, "B T"], mask: Bool[Tensor, "B S"], *state: Tensor
    ) -> tuple[Bool[Tensor, "B _ S"], Float[Tensor, "B T S"] | None]:
        """The positions, at least one for each query, and factors of their normalised weights, or None.

        ``step`` is t of each query, ``mask`` True at real positions. ``state``: see :meth:`start`.
        """

    def start(self, mask: Bool[Tensor, "B S"]) -> State:
        """The state before the first step, each tensor [B, ...]; empty for a window that does not remember."""
        return ()

    def remember(self, step: AttentionStep, *state: Tensor) -> State:
        """The state after ``step``, in the same shapes."""
        return state


class BuildWindow(Protocol):
    """A window class with its own settings filled in (``_partial_: true`` in the config)."""

    def __call__(self, *, query_size: int, memory_size: int) -> Window:
        """Build the window for these sizes, Q and M."""


class GlobalWindow(Window):
    """All real positions (Bahdanau et al. 2015, eq. 6; Luong et al. 2015, section 3.1)."""

    def forward(
        self, query: Float[Tensor, "B T Q"], step: Int[Tensor, "B T"], mask: Bool[Tensor, "B S"], *state: Tensor
    ) -> tuple[Bool[Tensor, "B _ S"], Float[Tensor, "B T S"] | None]:
        """All real positions."""
        return mask.unsqueeze(1), None


class LocalWindow(Window):
    """Only positions within [p_t - D, p_t + D]  (Luong et al. 2015, section 3.2), cut at the ends of the sentence.

    Args, besides the sizes:
        half_width: D. Below 1, a window could fall between two positions.
    """

    def __init__(self, *, query_size: int, memory_size: int, half_width: int) -> None:
        super().__init__(query_size=query_size, memory_size=memory_size)
        check_counts(half_width=half_width)
        self.half_width = half_width

    def within(self, offset: Shaped[Tensor, "B T S"], mask: Bool[Tensor, "B S"]) -> Bool[Tensor, "B T S"]:
        """The real positions s with |s - p_t| <= D; ``offset`` is s - p_t."""
        return mask.unsqueeze(1) & (offset.abs() <= self.half_width)


class LocalMonotonicWindow(LocalWindow):
    """p_t = t  (Luong et al. 2015, section 3.2, "local-m").

    The paper does not say what happens when the target is longer than the source: here p_t stays at the last position,
    so that the weights always sum to 1.
    """

    def forward(
        self, query: Float[Tensor, "B T Q"], step: Int[Tensor, "B T"], mask: Bool[Tensor, "B S"], *state: Tensor
    ) -> tuple[Bool[Tensor, "B _ S"], Float[Tensor, "B T S"] | None]:
        """The real positions near t."""
        centre = torch.minimum(step, mask.sum(dim=1, keepdim=True))
        return self.within(_positions(mask) - centre.unsqueeze(-1), mask), None


class LocalPredictiveWindow(LocalWindow):
    """The centre is predicted, p_t = S sigmoid(v_p^T tanh(W_p h_t))  (Luong et al. 2015, eq. 9, "local-p").

    a_t(s) = softmax_s(e_ts) exp(-(s - p_t)^2 / (2 sigma^2)), with sigma = D/2  (eq. 10). The softmax is taken inside
    the window, and as in the paper the products are not normalised again.
    """

    sums_to_one = False

    def __init__(self, *, query_size: int, memory_size: int, half_width: int) -> None:
        super().__init__(query_size=query_size, memory_size=memory_size, half_width=half_width)
        self.hidden = nn.Linear(query_size, query_size, bias=False)  # W_p
        self.position = nn.Linear(query_size, 1, bias=False)  # v_p

    def forward(
        self, query: Float[Tensor, "B T Q"], step: Int[Tensor, "B T"], mask: Bool[Tensor, "B S"], *state: Tensor
    ) -> tuple[Bool[Tensor, "B _ S"], Float[Tensor, "B T S"] | None]:
        """The real positions near p_t, and the Gaussian."""
        length = mask.sum(dim=1).view(-1, 1, 1)  # S of each example
        # Positions need more digits than bfloat16 has: above 256 it cannot represent every integer.
        logit = self.position(torch.tanh(self.hidden(query))).to(torch.promote_types(query.dtype, torch.float32))
        offset = _positions(mask) - length * torch.sigmoid(logit)
        gaussian = torch.exp(-2 * (offset / self.half_width) ** 2)  # 1 / (2 sigma^2) = 2 / D^2
        return self.within(offset, mask), gaussian


class PreviousMedianWindow(Window):
    """The positions p_t - w ... p_t + w - 1, with p_t the median of the previous weights.

    This is the "windowing" of Chorowski et al. 2015, section 2.3. The median is the first position up to which at least
    half of the weight lies. The paper does not give p_1: here it is 1, the beginning of the source.

    Args, besides the sizes:
        half_width: w.
    """

    remembers = True

    def __init__(self, *, query_size: int, memory_size: int, half_width: int) -> None:
        super().__init__(query_size=query_size, memory_size=memory_size)
        check_counts(half_width=half_width)
        self.half_width = half_width

    def start(self, mask: Bool[Tensor, "B S"]) -> State:
        """p_1 = 1, of shape [B, 1]."""
        return (mask.new_ones(mask.size(0), 1, dtype=torch.long),)

    def forward(
        self, query: Float[Tensor, "B 1 Q"], step: Int[Tensor, "B 1"], mask: Bool[Tensor, "B S"], *state: Tensor
    ) -> tuple[Bool[Tensor, "B 1 S"], Float[Tensor, "B 1 S"] | None]:
        """The real positions around ``state``, which is p_t."""
        offset = _positions(mask) - state[0]
        near = (offset >= -self.half_width) & (offset < self.half_width)
        return (mask & near).unsqueeze(1), None

    def remember(self, step: AttentionStep, *state: Tensor) -> State:
        """p_{t+1}."""
        up_to = step.weights.squeeze(1).cumsum(dim=-1)
        return (1 + (up_to < up_to[:, -1:] / 2).sum(dim=-1, keepdim=True),)


def _positions(mask: Tensor) -> Tensor:
    """1 ... S."""
    return torch.arange(1, mask.size(1) + 1, device=mask.device)
