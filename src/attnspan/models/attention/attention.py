"""Attention: a score compares queries with keys, a normaliser over a window gives weights and so the context."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnspan.errors import SettingError
from attnspan.models.attention.normalisers import BuildNormaliser, Softmax
from attnspan.models.attention.scores import BuildScore
from attnspan.models.attention.step import AttentionStep
from attnspan.models.attention.windows import BuildWindow, GlobalWindow
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import State


class Attention(nn.Module):
    """alpha_i = normaliser(e_i), c_i = sum_j alpha_ij h_j  (Bahdanau et al. 2015, eq. 5 and 6, with the softmax).

    Its state is the number of steps taken, [B], and the states of window and score.

    Raises:
        SettingError: the window could hide every position that the score knows; the score goes with the softmax only.
    """

    def __init__(
        self,
        *,
        score: BuildScore,
        window: BuildWindow,
        normaliser: BuildNormaliser,
        query_size: int,
        memory_size: int,
    ) -> None:
        super().__init__()
        self.score = score(query_size=query_size, memory_size=memory_size)
        self.window = window(query_size=query_size)
        self.normaliser = normaliser(query_size=query_size, heads=1)
        if not self.score.is_content and not isinstance(self.window, GlobalWindow):
            raise SettingError(
                "window",
                f"{type(self.window).__name__} needs a score that looks at the source, and "
                f"{type(self.score).__name__} does not",
            )
        if self.score.needs_softmax and type(self.normaliser) is not Softmax:  # length-scaled, it would be a power
            raise SettingError(
                "normaliser",
                f"{type(self.score).__name__} has the logarithm of weights in its scores, by which only Softmax "
                f"multiplies, and {type(self.normaliser).__name__} does not",
            )
        self.remembers = self.score.remembers or self.window.remembers
        self._first_of_score = 1 + len(self.window.start(torch.ones(1, 1, dtype=torch.bool)))  # in the state

    def prepare(self, memory: Memory) -> Memory:
        """Compute the keys once for all decoding steps."""
        return replace(memory, keys=self.score.keys(memory.states))

    def start(self, memory: Memory) -> State:
        """The state before the first step."""
        mask = memory.mask
        return (
            mask.new_zeros(mask.size(0), dtype=torch.long),
            *self.window.start(mask),
            *self.score.start(_keys(memory), mask),
        )

    def forward(
        self, query: Float[Tensor, "B T Q"], memory: Memory, state: State
    ) -> tuple[Float[Tensor, "B T M"], Float[Tensor, "B T S"], State]:
        """Contexts, weights, which are exactly 0 in padding, and the state after the last of the T steps.

        There is one step if score or window remembers. ``state`` is from :meth:`start` or the step before.
        """
        steps_taken, of_window, of_score = state[0], state[1 : self._first_of_score], state[self._first_of_score :]
        T = query.size(1)
        step = steps_taken.unsqueeze(1) + torch.arange(1, T + 1, device=steps_taken.device)
        scores = self.score(query, _keys(memory), *of_score)
        positions, factors = self.window(query, step, memory.mask, *of_window)
        visible = (positions & (scores != -torch.inf)).unsqueeze(1)  # a score may know no place for a position
        weights = self.normaliser(scores.unsqueeze(1), visible, query).squeeze(1)
        weights = weights if factors is None else weights * factors
        context = weights.to(memory.states.dtype) @ memory.states
        taken = AttentionStep(query=query, weights=weights, context=context)
        state = (
            steps_taken + T,
            *self.window.remember(taken, *of_window),
            *self.score.remember(taken, *of_score),
        )
        return context, weights, state


def _keys(memory: Memory) -> Tensor:
    assert memory.keys is not None, "the memory was not prepared"
    return memory.keys
