"""Attention: a score compares queries with keys, a normaliser over a window gives weights and so the context."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnspan.errors import SettingError, check_counts
from attnspan.kernels.contexts import Contexts
from attnspan.models.attention.hard import HardSoftmax
from attnspan.models.attention.heads import Heads
from attnspan.models.attention.monotonic import MonotonicWindow
from attnspan.models.attention.normalisers import BuildNormaliser, Softmax
from attnspan.models.attention.one_pass import one_pass
from attnspan.models.attention.scores import BuildScore
from attnspan.models.attention.step import AttentionStep
from attnspan.models.attention.windows import BuildWindow, GlobalWindow, LocalPredictiveWindow
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import State


class Attention(nn.Module):
    """alpha_i = normaliser(e_i), c_i = sum_j alpha_ij h_j  (Bahdanau et al. 2015, eq. 5 and 6, with the softmax).

    Its state is the number of steps taken, [B], the states of window and score (with n heads, n for each example), and
    that of the normaliser.

    Args, besides the sizes:
        score: compares queries with keys.
        window: which positions a step may attend to.
        normaliser: from scores to weights.
        heads: n; more than one see :class:`~attnspan.models.attention.heads.Heads`.

    Raises:
        SettingError: the window could hide every position that the score knows; the score goes with the softmax only;
            the heads cannot share M equally.
    """

    def __init__(
        self,
        *,
        score: BuildScore,
        window: BuildWindow,
        normaliser: BuildNormaliser,
        heads: int,
        query_size: int,
        memory_size: int,
    ) -> None:
        super().__init__()
        check_counts(heads=heads)
        self.heads = None
        head_query_size, head_memory_size = query_size, memory_size
        if heads > 1:
            self.heads = Heads(query_size=query_size, memory_size=memory_size, heads=heads)
            head_query_size = head_memory_size = memory_size // heads
        self.score = score(query_size=head_query_size, memory_size=head_memory_size)
        self.window = window(query_size=head_query_size, memory_size=head_memory_size)
        self.normaliser = normaliser(query_size=query_size, heads=heads)
        self._check_parts()
        self.remembers = self.score.remembers or self.window.remembers
        parts = type(self.window), type(self.normaliser)
        self._one_pass = one_pass(self.score) if heads == 1 and parts == (GlobalWindow, Softmax) else None
        self._first_of_score = 1 + len(self.window.start(torch.ones(1, 1, dtype=torch.bool)))  # in the state
        self._of_normaliser = len(self.normaliser.start(torch.ones(1, 1, dtype=torch.bool)))  # the last in the state
        self.shares_memory = not (self.remembers or self._of_normaliser)
        with torch.no_grad():
            self._score_keys = self.score.keys(torch.zeros(1, 1, head_memory_size)).size(-1)

    def _check_parts(self) -> None:
        if not self.score.is_content and not isinstance(self.window, GlobalWindow):
            raise SettingError(
                "window",
                f"{type(self.window).__name__} needs a score that looks at the source, and "
                f"{type(self.score).__name__} does not",
            )
        if isinstance(self.window, MonotonicWindow):
            if type(self.normaliser) is not Softmax:
                raise SettingError(
                    "normaliser",
                    f"{type(self.window).__name__} makes the weights itself, without {type(self.normaliser).__name__}",
                )
            if self.score.needs_softmax:
                raise SettingError(
                    "window",
                    f"{type(self.score).__name__} has the logarithm of weights in its scores, by which "
                    f"{type(self.window).__name__} does not multiply",
                )
        if isinstance(self.normaliser, HardSoftmax) and isinstance(self.window, LocalPredictiveWindow):
            raise SettingError(
                "window",
                f"{type(self.window).__name__} multiplies the weights, which then are no probabilities of "
                f"{type(self.normaliser).__name__}",
            )
        if self.score.needs_softmax and type(self.normaliser) is not Softmax:  # length-scaled, it would be a power
            raise SettingError(
                "normaliser",
                f"{type(self.score).__name__} has the logarithm of weights in its scores, by which only Softmax "
                f"multiplies, and {type(self.normaliser).__name__} does not",
            )

    @property
    def part_without_sum(self) -> str:
        """The class of the part because of which weights need not sum to 1; empty if they always do."""
        return next((type(part).__name__ for part in (self.window, self.normaliser) if not part.sums_to_one), "")

    def prepare(self, memory: Memory) -> Memory:
        """Compute the keys, and with several heads the values, once for all decoding steps."""
        if self.heads is None:
            keys = self._keys(memory.states)
            if self._one_pass is None or torch.is_grad_enabled():
                return replace(memory, keys=keys)
            return replace(memory, keys=keys, key_factors=self._one_pass.key_factors(keys))
        keys, values = self.heads.keys_and_values(memory.states)
        return replace(memory, keys=self._apart(self._keys(keys.flatten(0, 1))), values=values)

    def in_steps(self, memory: Memory) -> Memory:
        """A prepared memory for one step after another with gradients: those of its values are summed once."""
        return replace(memory, contexts=Contexts(self._of_each_head(memory)[1]))

    def _keys(self, states: Tensor) -> Tensor:
        """The score's, and those of a monotonic window behind them."""
        keys = self.score.keys(states)
        if not isinstance(self.window, MonotonicWindow):
            return keys
        return torch.cat([keys, self.window.keys(states)], dim=-1)

    def start(self, memory: Memory) -> State:
        """The state before the first step."""
        keys, _, mask = self._of_each_head(memory)
        parts = (*self.window.start(mask), *self.score.start(keys[..., : self._score_keys], mask))
        taken = memory.mask.new_zeros(memory.mask.size(0), dtype=torch.long)
        return taken, *self._unfold(parts), *self.normaliser.start(memory.mask)

    def forward(
        self, query: Float[Tensor, "B T Q"], memory: Memory, state: State
    ) -> tuple[Float[Tensor, "B T M"], Float[Tensor, "B heads T S"], Float[Tensor, "B heads T S"] | None, State]:
        """Contexts, weights, which are exactly 0 in padding, choices, and the state after the last of the T steps.

        The choices are those of :meth:`~attnspan.models.attention.normalisers.Normaliser.choose`. There is one step if
        score or window remembers. ``state`` is from :meth:`start` or the step before. K queries may share a row of the
        memory, see :attr:`~attnspan.models.decoders.base.Decoder.shares_memory`.
        """
        steps_taken, (N, T), R = state[0], query.shape[:2], len(memory.mask)
        if N == R:
            step = steps_taken.unsqueeze(1) + torch.arange(1, T + 1, device=steps_taken.device)
            context, weights, choices, parts = self._look(query, step, memory, state[1:])
        else:  # the K of a source as K steps of it
            step = steps_taken.view(R, -1) + 1
            context, weights, choices, parts = self._look(query.reshape(R, N // R, -1), step, memory, state[1:])
            context, weights = context.flatten(0, 1).unsqueeze(1), weights.transpose(1, 2).flatten(0, 1).unsqueeze(2)
        return context, weights, choices, (steps_taken + T, *parts)

    def _look(
        self, query: Float[Tensor, "B T Q"], step: Int[Tensor, "B T"], memory: Memory, state: State
    ) -> tuple[Float[Tensor, "B T M"], Float[Tensor, "B heads T S"], Float[Tensor, "B heads T S"] | None, State]:
        """Contexts, weights, choices, and the states of the parts; ``step`` counts from 1."""
        if self._one_pass is not None and not torch.is_grad_enabled():
            found = self._one_pass(query, memory)
            if found is not None:
                return found[0], found[1].unsqueeze(1), None, ()
        own = len(state) - self._of_normaliser
        parts, of_normaliser = self._fold(state[:own]), state[own:]
        of_window, of_score = parts[: self._first_of_score - 1], parts[self._first_of_score - 1 :]
        keys, values, mask = self._of_each_head(memory)
        if self.heads is not None:
            step = step.repeat_interleave(self.heads.number, dim=0)
        asked = query if self.heads is None else self.heads.queries(query)
        scores = self.score(asked, keys[..., : self._score_keys], *of_score)
        positions, factors = self.window(asked, step, mask, *of_window)
        visible = positions & (scores != -torch.inf)  # a score may know no place for a position
        chosen = choices = None
        if isinstance(self.window, MonotonicWindow):
            chosen = self.window.choose(scores, visible, *of_window)
            weights = self.window.spread(chosen, asked, keys[..., self._score_keys :], visible)
        else:
            weights = self.normaliser(self._apart(scores), self._apart(visible), query).flatten(0, 1)
            weights = weights if factors is None else weights * factors
            choices = self.normaliser.choose(self._apart(weights), *of_normaliser)
        looks = weights
        if choices is not None:
            looks = torch.where(choices.any(dim=-1, keepdim=True), choices, self._apart(weights)).flatten(0, 1)
        looks_at_values = looks.to(values.dtype)
        context = looks_at_values @ values if memory.contexts is None else memory.contexts(looks_at_values)
        taken = AttentionStep(query=asked, weights=looks, context=context, chosen=chosen)
        parts = (*self.window.remember(taken, *of_window), *self.score.remember(taken, *of_score))
        context = context if self.heads is None else self.heads.join(context)
        return context, self._apart(weights), choices, (*self._unfold(parts), *of_normaliser)

    def _of_each_head(self, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and mask, [B*heads, S, ...]."""
        assert memory.keys is not None, "the memory was not prepared"
        if self.heads is None:
            return memory.keys, memory.states, memory.mask
        assert memory.values is not None
        mask = memory.mask.repeat_interleave(self.heads.number, dim=0)
        return memory.keys.flatten(0, 1), memory.values.flatten(0, 1), mask

    def _apart(self, x: Tensor) -> Tensor:
        """From [B*heads, ...] to [B, heads, ...]."""
        return x.unsqueeze(1) if self.heads is None else x.unflatten(0, (-1, self.heads.number))

    def _fold(self, parts: State) -> State:
        return parts if self.heads is None else tuple(part.flatten(0, 1) for part in parts)

    def _unfold(self, parts: State) -> State:
        return parts if self.heads is None else tuple(self._apart(part) for part in parts)
