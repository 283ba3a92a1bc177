"""Monotonic attention: a step looks at one position, or a few up to it, and never before where the last step looked.

It reads from where the last step stopped, and at each position stops with probability p_tj = sigmoid(e_tj + r). In
training the weights are the probabilities of where it stops, so that they have gradients; in evaluation it stops where
p > 1/2 (Raffel et al. 2017, "Online and Linear-Time Attention by Enforcing Monotonic Alignments").
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from attnspan.errors import SettingError, check_counts
from attnspan.models.attention.entmax import in_float32
from attnspan.models.attention.scores import BuildScore
from attnspan.models.attention.step import AttentionStep
from attnspan.models.attention.windows import Window
from attnspan.models.recurrence.recurrence import State


class MonotonicWindow(Window):
    """alpha_tj = p_tj q_tj, q_tj = (1 - p_{t,j-1}) q_{t,j-1} + alpha_{t-1,j}  (Raffel et al. 2017, eq. 8 to 11).

    alpha_0 is 1 at the first position. In training p_tj = sigmoid(e_tj + r + N(0, 1)), so that the model learns scores
    far from 0. A step that reaches the end without stopping has weights of 0, and so have all steps after it: the paper
    leaves the latter open, and these are what the equations say. In training, too, the weights may sum to less than 1.

    It takes the place of the normaliser. Its state is alpha_{t-1}, [B, S].

    Args, besides the sizes:
        offset: r before training. Below 0 the first updates see more than the beginning of the source.
    """

    remembers = True
    sums_to_one = False

    def __init__(self, *, query_size: int, memory_size: int, offset: float) -> None:
        super().__init__(query_size=query_size, memory_size=memory_size)
        self.offset = nn.Parameter(torch.tensor(float(offset)))  # r

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S A"]:
        """Keys of its own, next to the score's: none."""
        return states[..., :0]

    def start(self, mask: Bool[Tensor, "B S"]) -> State:
        """alpha_0."""
        return (F.one_hot(mask.new_zeros(mask.size(0), dtype=torch.long), mask.size(1)).float(),)

    def forward(
        self, query: Float[Tensor, "B 1 Q"], step: Int[Tensor, "B 1"], mask: Bool[Tensor, "B S"], *state: Tensor
    ) -> tuple[Bool[Tensor, "B _ S"], Float[Tensor, "B 1 S"] | None]:
        """All real positions: which of them it stops at is for the scores to say."""
        return mask.unsqueeze(1), None

    def choose(
        self, scores: Float[Tensor, "B 1 S"], visible: Bool[Tensor, "B 1 S"], *state: Tensor
    ) -> Float[Tensor, "B 1 S"]:
        """alpha_t, from e_t, and ``state``, which is alpha_{t-1}."""
        energy, seen = in_float32(scores).squeeze(1) + self.offset, visible.squeeze(1)
        if not self.training:
            may_stop = (energy > 0) & seen & (state[0].cumsum(dim=-1) > 0)
            return (may_stop & (may_stop.cumsum(dim=-1) == 1)).to(energy.dtype).unsqueeze(1)
        energy = energy.masked_fill(~seen, 0) + torch.randn_like(energy)
        stop = torch.sigmoid(energy).masked_fill(~seen, 0)
        go_on = torch.sigmoid(-energy).masked_fill(~seen, 1)
        reached = linear_scan(F.pad(go_on[:, :-1], (1, 0)), state[0].to(energy.dtype))
        return (stop * reached).unsqueeze(1)

    def spread(
        self, chosen: Float[Tensor, "B 1 S"], query: Float[Tensor, "B 1 Q"], keys: Float[Tensor, "B S _"],
        visible: Bool[Tensor, "B 1 S"],
    ) -> Float[Tensor, "B 1 S"]:  # fmt: skip
        """The weights for the positions where it stops: the same."""
        return chosen

    def remember(self, step: AttentionStep, *state: Tensor) -> State:
        """alpha_t."""
        assert step.chosen is not None
        return (step.chosen.squeeze(1),)


class ChunkwiseMonotonicWindow(MonotonicWindow):
    """MoChA: a softmax over the w positions up to where it stops  (Chiu and Raffel 2018, eq. 11 and 21 to 23).

    beta_tj = sum_{k=j}^{j+w-1} alpha_tk exp(u_tj) / sum_{l=k-w+1}^{k} exp(u_tl), with a second score u.

    Args, besides those of :class:`MonotonicWindow`:
        width: w.
        score: builds u. It depends on the source and remembers nothing.
    """

    def __init__(self, *, query_size: int, memory_size: int, offset: float, width: int, score: BuildScore) -> None:
        super().__init__(query_size=query_size, memory_size=memory_size, offset=offset)
        check_counts(width=width)
        self.width = width
        self.score = score(query_size=query_size, memory_size=memory_size)
        if self.score.remembers or not self.score.is_content:
            raise SettingError(
                "score", f"must depend on the source and remember nothing, and {type(self.score).__name__} does not"
            )

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S A"]:
        """Those of u."""
        return self.score.keys(states)

    def spread(
        self, chosen: Float[Tensor, "B 1 S"], query: Float[Tensor, "B 1 Q"], keys: Float[Tensor, "B S _"],
        visible: Bool[Tensor, "B 1 S"],
    ) -> Float[Tensor, "B 1 S"]:  # fmt: skip
        """beta_t."""
        u, w = in_float32(self.score(query, keys)).squeeze(1), self.width
        u = u.masked_fill(~visible.squeeze(1), torch.finfo(u.dtype).min)  # finite: a chunk may have nothing else
        ahead = F.pad(u, (w - 1, 0), value=torch.finfo(u.dtype).min)
        shares = torch.softmax(ahead.unfold(1, w, 1), dim=-1) * chosen.squeeze(1).unsqueeze(-1)  # [B, S, w], by k
        shares, S = F.pad(shares, (0, 0, 0, w - 1)), shares.size(1)
        moved = [
            shares[:, k : k + S, w - 1 - k] for k in range(w)
        ]  # to position l = k - w + 1 + its place in the chunk
        return torch.stack(moved).sum(dim=0).masked_fill(~visible.squeeze(1), 0).unsqueeze(1)


def linear_scan(a: Float[Tensor, "B S"], b: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
    """h_j = a_j h_{j-1} + b_j, h_0 = 0, for |a_j| <= 1, in log_2 S rounds (Hillis and Steele 1986).

    Nothing is divided. The usual closed form, cumprod(a) cumsum(b / cumprod(a)), needs a lower limit for cumprod(a):
    with a = 1/2 most of the weight is lost at 60 positions.
    """
    scanned: Tensor = _LinearScan.apply(a, b)
    return scanned


class _LinearScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        """h."""
        h = _scan(a, b)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_h: Tensor) -> tuple[Tensor, Tensor]:
        """dL/db_j = dL/dh_j + a_{j+1} dL/db_{j+1}, a scan from the end; dL/da_j = h_{j-1} dL/db_j."""
        a, h = ctx.saved_tensors
        d_b = _scan(F.pad(a[:, 1:], (0, 1)).flip(1), d_h.flip(1)).flip(1)
        return F.pad(h[:, :-1], (1, 0)) * d_b, d_b


def _scan(a: Tensor, b: Tensor) -> Tensor:
    """After a round each h_j has the last 2, 4, 8 ... terms."""
    reach = 1
    while reach < a.size(1):
        b = torch.cat([b[:, :reach], torch.addcmul(b[:, reach:], a[:, reach:], b[:, :-reach])], dim=1)
        a = torch.cat([a[:, :reach], a[:, reach:] * a[:, :-reach]], dim=1)
        reach *= 2
    return b
