"""A mixture of a score that looks at positions with one that looks at the source."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.errors import SettingError, check_switches
from attnspan.models.attention.location.positions import log_weights, wide
from attnspan.models.attention.scores import BuildScore, Score
from attnspan.models.attention.step import AttentionStep
from attnspan.models.recurrence.recurrence import State


class MixedScore(Score):
    """alpha = m alpha_location + (1 - m) alpha_content,  m = sigmoid(w s).

    Chowdhury and Caragea 2023, "Monotonic Location Attention for Length Generalization" ("Mix").

    Args, besides the sizes:
        location: builds a score that looks at positions, such as
            :class:`~attnspan.models.attention.location.relative.LocationAttentionScore`.
        content: builds a score that looks at the source and remembers nothing.
        own_weights: the location score remembers its own weights and not the mixture ("PR" in the paper's code).
    """

    remembers = True
    needs_softmax = True

    def __init__(
        self, *, query_size: int, memory_size: int, location: BuildScore, content: BuildScore, own_weights: bool
    ) -> None:
        super().__init__()
        check_switches(own_weights=own_weights)
        self.location = location(query_size=query_size, memory_size=memory_size)
        self.content = content(query_size=query_size, memory_size=memory_size)
        self.mix = nn.Linear(query_size, 1, bias=False)  # w
        self.own_weights = own_weights
        if self.content.remembers:
            raise SettingError("content", f"must remember nothing, and {type(self.content).__name__} does")
        if self.location.keys(torch.zeros(1, 1, memory_size)).size(-1):
            raise SettingError(
                "location", f"must look at positions alone, and {type(self.location).__name__} has keys of the source"
            )

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S A"]:
        """Those of the content score."""
        return self.content.keys(states)

    def start(self, keys: Float[Tensor, "B S A"], mask: Bool[Tensor, "B S"]) -> State:
        """The mask, and the state of the location score."""
        return mask, *self.location.start(keys[..., :0], mask)

    def forward(
        self, query: Float[Tensor, "B 1 Q"], keys: Float[Tensor, "B S A"], *state: Tensor
    ) -> Float[Tensor, "B 1 S"]:
        """log alpha."""
        mask, *of_location = state
        share = wide(self.mix(query))
        location = log_weights(self.location(query, keys[..., :0], *of_location), mask)
        content = log_weights(self.content(query, keys), mask)
        return torch.logaddexp(F.logsigmoid(share) + location, F.logsigmoid(-share) + content)

    def remember(self, step: AttentionStep, *state: Tensor) -> State:
        """The mask, and what the location score remembers."""
        mask, *of_location = state
        if self.own_weights:
            no_keys = step.weights.transpose(1, 2)[..., :0]
            own = log_weights(self.location(step.query, no_keys, *of_location), mask).exp() * mask.unsqueeze(1)
            step = replace(step, weights=own)
        return mask, *self.location.remember(step, *of_location)
