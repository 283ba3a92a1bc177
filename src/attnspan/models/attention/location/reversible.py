"""Scores that read the source from its beginning or its end, as the first query decides.

Chowdhury and Caragea 2023, "Monotonic Location Attention for Length Generalization" (ICML 2023), read a mixture of the
source and its reverse, r_j = g h_j + (1 - g) h_{n+1-j}, g = sigmoid(5 w s_0). With weights beta on r the context is
sum_j beta_j r_j = sum_j alpha_j h_j, where alpha_j = g beta_j + (1 - g) beta_{n+1-j} are weights on the source. This
alone makes reversing as easy as copying.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.errors import SettingError, check_counts
from attnspan.models.attention.location.positions import log_weights, wide
from attnspan.models.attention.scores import BuildScore, Score
from attnspan.models.attention.step import AttentionStep
from attnspan.models.recurrence.recurrence import State


class Direction(nn.Module):
    """The direction of reading, g = sigmoid(5 w s_0): 1 is forwards. s_0 is the query of the first step.

    Its state is the number of steps taken, [B, 1]; the logit of g, [B, 1]; and where each position lies when the source
    is reversed, [B, S].
    """

    PARTS = 3

    def __init__(self, *, query_size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(query_size, 1, bias=False)  # w

    def start(self, keys: Float[Tensor, "B S _"], mask: Bool[Tensor, "B S"]) -> State:
        """The state before the first step."""
        length = mask.sum(dim=1, keepdim=True)
        position = torch.arange(mask.size(1), device=mask.device)
        reversed_position = torch.where(mask, length - 1 - position, position)
        return torch.zeros_like(length), torch.zeros_like(length, dtype=wide(keys).dtype), reversed_position

    def after(self, query: Float[Tensor, "B 1 Q"], *state: Tensor) -> State:
        """The state after a step."""
        return state[0] + 1, self.logit(query, *state), state[2]

    def logit(self, query: Float[Tensor, "B 1 Q"], *state: Tensor) -> Float[Tensor, "B 1"]:
        """log g / (1 - g)."""
        taken, logit, _ = state
        return torch.where(taken == 0, 5 * wide(self.gate(query).squeeze(1)), logit)

    @staticmethod
    def reverse(values: Float[Tensor, "B 1 S"], *state: Tensor) -> Float[Tensor, "B 1 S"]:
        """Values at the positions of the reversed source."""
        return values.gather(2, state[2].unsqueeze(1))

    def on_source(
        self, log_beta: Float[Tensor, "B 1 S"], logit: Float[Tensor, "B 1"], *state: Tensor
    ) -> Float[Tensor, "B 1 S"]:
        """log alpha_j = log(g beta_j + (1 - g) beta_{n+1-j})."""
        logit = logit.unsqueeze(1)
        backwards = F.logsigmoid(-logit) + self.reverse(log_beta, *state)
        return torch.logaddexp(F.logsigmoid(logit) + log_beta, backwards)


class ReversibleScore(Score):
    """log alpha from beta, the softmax of a score that looks at positions alone.

    The paper's OneStep and Mono read the source so. What the score remembers is beta, its own weights.

    Args, besides the sizes:
        location: builds the score, such as :class:`~attnspan.models.attention.location.relative.OneStepScore`.
    """

    remembers = True
    needs_softmax = True

    def __init__(self, *, query_size: int, memory_size: int, location: BuildScore) -> None:
        super().__init__()
        self.location = location(query_size=query_size, memory_size=memory_size)
        self.direction = Direction(query_size=query_size)
        if self.location.keys(torch.zeros(1, 1, memory_size)).size(-1):
            raise SettingError(
                "location", f"must look at positions alone, and {type(self.location).__name__} has keys of the source"
            )

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S 0"]:
        """Keys without features: only their number is used."""
        return states[..., :0]

    def start(self, keys: Float[Tensor, "B S 0"], mask: Bool[Tensor, "B S"]) -> State:
        """The mask, and the states of direction and score."""
        return mask, *self.direction.start(keys, mask), *self.location.start(keys, mask)

    def forward(
        self, query: Float[Tensor, "B 1 Q"], keys: Float[Tensor, "B S 0"], *state: Tensor
    ) -> Float[Tensor, "B 1 S"]:
        """log alpha of one step."""
        mask, direction, of_location = self._parts(state)
        log_beta = log_weights(self.location(query, keys, *of_location), mask)
        return self.direction.on_source(log_beta, self.direction.logit(query, *direction), *direction)

    def remember(self, step: AttentionStep, *state: Tensor) -> State:
        """The states after the step."""
        mask, direction, of_location = self._parts(state)
        no_keys = step.weights.transpose(1, 2)[..., :0]
        beta = log_weights(self.location(step.query, no_keys, *of_location), mask).exp() * mask.unsqueeze(1)
        own = self.location.remember(replace(step, weights=beta), *of_location)
        return mask, *self.direction.after(step.query, *direction), *own

    @staticmethod
    def _parts(state: State) -> tuple[Tensor, State, State]:
        return state[0], state[1 : 1 + Direction.PARTS], state[1 + Direction.PARTS :]


class BiRelativeScore(Score):
    """e_tj = ((q + u) k_j + (q + v) W_R R_{j-t}) / sqrt(d): content and relative position ("Bi-Relative").

    Dai et al. 2019 (Transformer-XL), section 3.3, between decoder and source. q = W_q s, k_j = W_k r_j, and u and v are
    learned vectors. R_i has d / 2 sines and d / 2 cosines of i at the wavelengths of Vaswani et al. 2017.

    Args, besides the sizes:
        attention_size: d, even.
    """

    remembers = True
    needs_softmax = True

    def __init__(self, *, query_size: int, memory_size: int, attention_size: int) -> None:
        super().__init__()
        check_counts(attention_size=attention_size)
        if attention_size % 2:
            raise SettingError("attention_size", f"must be even, for sines and cosines, not {attention_size}")
        self.query = nn.Linear(query_size, attention_size, bias=False)  # W_q
        self.key = nn.Linear(memory_size, attention_size, bias=False)  # W_k
        self.relative = nn.Linear(attention_size, attention_size, bias=False)  # W_R
        self.content_bias = nn.Parameter(torch.empty(attention_size).uniform_(-1, 1) / attention_size**0.5)  # u
        self.position_bias = nn.Parameter(torch.empty(attention_size).uniform_(-1, 1) / attention_size**0.5)  # v
        self.direction = Direction(query_size=query_size)

    def keys(self, states: Float[Tensor, "B S M"]) -> Float[Tensor, "B S A"]:
        """W_k h_j for all j."""
        return self.key(states)

    def start(self, keys: Float[Tensor, "B S A"], mask: Bool[Tensor, "B S"]) -> State:
        """The mask, and the state of the direction."""
        return mask, *self.direction.start(keys, mask)

    def forward(
        self, query: Float[Tensor, "B 1 Q"], keys: Float[Tensor, "B S A"], *state: Tensor
    ) -> Float[Tensor, "B 1 S"]:
        """log alpha of one step."""
        mask, *direction = state
        q = self.query(query)
        of_source = wide((q + self.content_bias) @ keys.transpose(1, 2))
        logit = self.direction.logit(query, *direction)
        forwards = torch.sigmoid(logit).unsqueeze(1)
        content = forwards * of_source + (1 - forwards) * self.direction.reverse(of_source, *direction)
        by_position = wide((q + self.position_bias) @ self.relative.weight)  # (q + v) W_R
        scores = (content + self._along(by_position, direction[0] + 1, mask)) / q.size(-1) ** 0.5
        return self.direction.on_source(log_weights(scores, mask), logit, *direction)

    def remember(self, step: AttentionStep, *state: Tensor) -> State:
        """The mask, and the direction after the step."""
        mask, *direction = state
        return mask, *self.direction.after(step.query, *direction)

    @staticmethod
    def _along(
        vector: Float[Tensor, "B 1 A"], step: Int[Tensor, "B 1"], mask: Bool[Tensor, "B S"]
    ) -> Float[Tensor, "B 1 S"]:
        """The products of ``vector`` with R_{j-t} for all j, without a tensor [B, S, A].

        sin (j - t) w = sin jw cos tw - cos jw sin tw: what depends on t joins the vector.
        """
        half = vector.size(-1) // 2
        frequency = 10000.0 ** (-torch.arange(half, device=vector.device, dtype=vector.dtype) / half)
        sine, cosine = vector.chunk(2, dim=-1)
        of_step = step.unsqueeze(-1) * frequency  # [B, 1, d / 2]
        turned = (
            sine * of_step.cos() + cosine * of_step.sin(),
            cosine * of_step.cos() - sine * of_step.sin(),
        )
        position = torch.arange(1, mask.size(1) + 1, device=mask.device).unsqueeze(1) * frequency  # [S, d / 2]
        with torch.autocast(vector.device.type, enabled=False):  # positions need float32
            return turned[0] @ position.sin().T + turned[1] @ position.cos().T
