"""Forward attention: the weights move from one position to the next, or stay."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.models.attention.location.positions import first_position, log_prior, wide
from attnspan.models.attention.scores import BuildScore, Score
from attnspan.models.attention.step import AttentionStep
from attnspan.models.recurrence.recurrence import State


class ForwardScore(Score):
    """alpha_t(j) ~ ((1 - u) alpha_{t-1}(j) + u alpha_{t-1}(j - 1)) y_t(j),  y_t the softmax of a content score.

    Zhang et al. 2018, "Forward attention in sequence-to-sequence acoustic modelling", algorithm 1, where u = 1/2.
    alpha_0 is 1 at position 1. A step moves by one position at most, so a target needs as many steps as the source has
    tokens, and in its order.

    Args, besides the sizes:
        content: builds the score that is weighted, which may remember, too.
    """

    remembers = True
    needs_softmax = True

    def __init__(self, *, query_size: int, memory_size: int, content: BuildScore) -> None:
        super().__init__()
        self.content = content(query_size=query_size, memory_size=memory_size)

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S A"]:
        """Those of the content score."""
        return self.content.keys(states)

    def start(self, keys: Float[Tensor, "B S A"], mask: Bool[Tensor, "B S"]) -> State:
        """alpha_0, [B, S]; u, [B, 1]; and the state of the content score."""
        previous = first_position(keys)
        return previous, previous.new_full((len(previous), 1), 0.5), *self.content.start(keys, mask)

    def forward(
        self, query: Float[Tensor, "B 1 Q"], keys: Float[Tensor, "B S A"], *state: Tensor
    ) -> Float[Tensor, "B 1 S"]:
        """The content score, and the logarithm of what it is multiplied by."""
        previous, moving, *of_content = state
        moved = F.pad(previous[:, :-1], (1, 0))
        prior = (1 - moving) * previous + moving * moved
        return self.content(query, keys, *of_content) + log_prior(prior).unsqueeze(1)

    def remember(self, step: AttentionStep, *state: Tensor) -> State:
        """alpha_t, and u as it was."""
        _, moving, *of_content = state
        return wide(step.weights.squeeze(1)), moving, *self.content.remember(step, *of_content)


class AgentForwardScore(ForwardScore):
    """The same with a transition agent, u_t = sigmoid(w [c_t; s_t] + b)  (Zhang et al. 2018, section 3.3; algorithm 2).

    u_0 = 1/2. The paper's agent also reads the last output, which a score does not see. ESPnet's u is 1 - u of Coqui's;
    here as in the paper it is the probability to move.
    """

    def __init__(self, *, query_size: int, memory_size: int, content: BuildScore) -> None:
        super().__init__(query_size=query_size, memory_size=memory_size, content=content)
        self.agent = nn.Linear(memory_size + query_size, 1)

    def remember(self, step: AttentionStep, *state: Tensor) -> State:
        """alpha_t and u_t."""
        weights, _, *of_content = super().remember(step, *state)
        logit = self.agent(torch.cat([step.context, step.query], dim=-1)).squeeze(1)
        return weights, wide(logit).sigmoid(), *of_content
