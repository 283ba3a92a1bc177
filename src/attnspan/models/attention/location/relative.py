"""Location attention: the weights are a bump whose centre is relative to where the last step looked.

Chowdhury and Caragea 2023, "Monotonic Location Attention for Length Generalization" (ICML 2023). Positions are
fractions of the source, (j - 1) / (n - 1) for j = 1 ... n, and a step of one position is 1 / (n - 1). The paper adds
learned start and end tokens to the source; here n counts the source's own tokens.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.errors import check_counts
from attnspan.models.attention.location.positions import wide
from attnspan.models.attention.scores import Score
from attnspan.models.attention.step import AttentionStep
from attnspan.models.recurrence.recurrence import State


class RelativeScore(Score):
    """e_j = -((j - 1) / (n - 1) - mu_t)^2 / 2 sigma_t^2.

    q = W_p s, sigma_t = (ReLU(w_sigma q) + 0.27) / n, rho = W_rho q, and mu_t depends on rho and on p_{t-1}, the mean
    position of the weights of the step before; p_0 = 0. The contents of the source are not seen.

    The authors divide by a sum that is 0 in float32 when mu lies four positions beyond the end, and then there is no
    gradient. A softmax has no such hole.

    Args, besides the sizes:
        attention_size: A, features of q.
    """

    remembers = True
    needs_softmax = True
    numbers: int
    """Of rho."""

    def __init__(self, *, query_size: int, memory_size: int, attention_size: int) -> None:
        super().__init__()
        check_counts(attention_size=attention_size)
        self.query = nn.Linear(query_size, attention_size, bias=False)  # W_p
        self.width = nn.Linear(attention_size, 1, bias=False)  # w_sigma
        self.move = nn.Linear(attention_size, self.numbers, bias=False)  # W_rho

    @abstractmethod
    def centre(
        self, rho: Float[Tensor, "B _"], previous: Float[Tensor, "B 1"], unit: Float[Tensor, "B 1"]
    ) -> Float[Tensor, "B 1"]:
        """mu_t from rho, p_{t-1} and 1 / (n - 1)."""

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S 0"]:
        """Keys without features: only their number is used."""
        return states[..., :0]

    def start(self, keys: Float[Tensor, "B S _"], mask: Bool[Tensor, "B S"]) -> State:
        """n and p_0, each [B, 1]."""
        length = mask.sum(dim=1, keepdim=True)
        return length, torch.zeros_like(length, dtype=wide(keys).dtype)

    def forward(
        self, query: Float[Tensor, "B 1 Q"], keys: Float[Tensor, "B S _"], *state: Tensor
    ) -> Float[Tensor, "B 1 S"]:
        """e_j of one step; ``state`` is n and p_{t-1}."""
        length, previous = state
        q = self.query(query.squeeze(1))
        sigma = (F.relu(wide(self.width(q))) + 0.27) / length
        mu = self.centre(wide(self.move(q)), previous, 1 / (length - 1).clamp(min=1))
        return (-(((_fractions(keys, length) - mu) / sigma) ** 2) / 2).unsqueeze(1)

    def remember(self, step: AttentionStep, *state: Tensor) -> State:
        """p_t."""
        length, _ = state
        weights = wide(step.weights.squeeze(1))
        return length, (weights * _fractions(weights, length)).sum(dim=1, keepdim=True)


def _fractions(like: Float[Tensor, "B S ..."], length: Tensor) -> Tensor:
    """(j - 1) / (n - 1) of each position: [B, S]; 0 in a source of one token."""
    return torch.arange(like.size(1), device=like.device) / (length - 1).clamp(min=1)


class OneStepScore(RelativeScore):
    """mu_t = p_{t-1} + sigmoid(5 rho) / (n - 1): stays or moves by one position ("OneStep")."""

    numbers = 1

    def centre(
        self, rho: Float[Tensor, "B _"], previous: Float[Tensor, "B 1"], unit: Float[Tensor, "B 1"]
    ) -> Float[Tensor, "B 1"]:
        """mu_t."""
        return previous + torch.sigmoid(5 * rho) * unit


class RelativeMonotonicScore(RelativeScore):
    """mu_t = p_{t-1} + (g ReLU(rho) + (1 - g) sigmoid(5 rho)) / (n - 1), g = sigmoid(b): any step ahead ("Mono").

    b is learned and starts at 20, where a step is ReLU(rho) positions ("RMono").
    """

    numbers = 1

    def __init__(self, *, query_size: int, memory_size: int, attention_size: int) -> None:
        super().__init__(query_size=query_size, memory_size=memory_size, attention_size=attention_size)
        self.gate = nn.Parameter(torch.tensor(20.0))  # b

    def centre(
        self, rho: Float[Tensor, "B _"], previous: Float[Tensor, "B 1"], unit: Float[Tensor, "B 1"]
    ) -> Float[Tensor, "B 1"]:
        """mu_t."""
        gate = torch.sigmoid(self.gate)
        return previous + (gate * F.relu(rho) + (1 - gate) * torch.sigmoid(5 * rho)) * unit


class LocationAttentionScore(RelativeScore):
    """mu_t = clamp(ss(rho_1) / (n - 1) + sigmoid(rho_2) p_{t-1} + sigmoid(rho_3)): relative or absolute ("LocAttn").

    ss(x) = floor(x) + sigmoid(20 (x - floor(x) - 0.5)) is a soft staircase. Outside of [0, 1] the clamp has the slope
    0.01, so that a gradient remains. Dubois et al. 2020, "Location attention for extrapolation to longer sequences",
    as simplified by Chowdhury and Caragea.
    """

    numbers = 3

    def centre(
        self, rho: Float[Tensor, "B _"], previous: Float[Tensor, "B 1"], unit: Float[Tensor, "B 1"]
    ) -> Float[Tensor, "B 1"]:
        """mu_t."""
        steps, kept, absolute = rho.split(1, dim=-1)
        whole = steps.floor()
        staircase = whole + torch.sigmoid(20 * (steps - whole - 0.5))
        mu = staircase * unit + torch.sigmoid(kept) * previous + torch.sigmoid(absolute)
        inside = mu.clamp(0.0, 1.0)
        return inside + 0.01 * (mu - inside)
