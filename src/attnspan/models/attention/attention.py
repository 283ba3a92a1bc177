"""Attention: a score compares queries with keys, a window makes weights of it, a weighted sum the context."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnspan.models.attention.scores import BuildScore
from attnspan.models.attention.windows import BuildWindow, GlobalWindow
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import State


class Attention(nn.Module):
    """alpha_ij = window(e_ij), c_i = sum_j alpha_ij h_j  (Bahdanau et al. 2015, eq. 5 and 6).

    Its state is the number of steps taken, [B], and what the score remembers.

    Args:
        score: builds the score.
        window: builds the window.
        query_size: Q, features of a query.
        memory_size: M.

    Raises:
        ValueError: a window that could hide every position that the score knows.
    """

    def __init__(self, *, score: BuildScore, window: BuildWindow, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.score = score(query_size=query_size, memory_size=memory_size)
        self.window = window(query_size=query_size)
        if not self.score.is_content and not isinstance(self.window, GlobalWindow):
            raise ValueError(
                f"decoder.window={type(self.window).__name__} goes with scores that look at the source, and "
                f"decoder.score={type(self.score).__name__} does not"
            )

    def prepare(self, memory: Memory) -> Memory:
        """Compute the keys once for all decoding steps."""
        return memory.with_keys(self.score.keys(memory.states))

    def start(self, memory: Memory) -> State:
        """The state before the first step."""
        return memory.mask.new_zeros(memory.mask.size(0), dtype=torch.long), *self.score.start(_keys(memory))

    def forward(self, query: Tensor, memory: Memory, state: State) -> tuple[Tensor, Tensor, State]:
        """Attend.

        Args:
            query: [B, T, Q]; T is 1 if the score remembers.
            memory: prepared by :meth:`prepare`.
            state: from :meth:`start` or the step before.

        Returns:
            context [B, T, M], weights [B, T, S], exactly 0 in padding, and the state behind the last of the T steps.
        """
        taken, *past = state
        T = query.size(1)
        step = taken.unsqueeze(1) + torch.arange(1, T + 1, device=taken.device)
        scores = self.score(query, _keys(memory), *past)
        weights = self.window(scores, query, step, memory.mask)
        return (
            weights.to(memory.states.dtype) @ memory.states,
            weights,
            (taken + T, *self.score.remember(weights, *past)),
        )


def _keys(memory: Memory) -> Tensor:
    assert memory.keys is not None, "the memory was not prepared"
    return memory.keys
