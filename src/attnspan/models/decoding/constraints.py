"""What the next token of a hypothesis may be. A constraint sets the log p of all others to -inf, and no other number.

So log p of a hypothesis stays the model's; given tokens alone have none, as their p is 1. A constraint looks at one
example and its prefix alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Constraint(ABC):
    """Forbids some of the next tokens."""

    @abstractmethod
    def forbid(
        self, log_probs: Float[Tensor, "N V"], prefixes: Int[Tensor, "N T"], examples: Int[Tensor, " N"], eos: int
    ) -> None:
        """Set what is forbidden to -inf, in place.

        Args:
            log_probs: log p of the next token of each prefix.
            prefixes: T tokens each, without <bos>.
            examples: the position of each prefix's source in the batch.
            eos: id of <eos>.
        """


class MinimumLength(Constraint):
    """A hypothesis has at least so many tokens, <eos> not counted."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def forbid(
        self, log_probs: Float[Tensor, "N V"], prefixes: Int[Tensor, "N T"], examples: Int[Tensor, " N"], eos: int
    ) -> None:
        """Forbid <eos> in shorter prefixes."""
        if prefixes.size(1) < self.tokens:
            log_probs[:, eos] = -torch.inf


class GivenLength(Constraint):
    """Each hypothesis has exactly the length that is given for its example ("oracle length", Newman et al. 2020).

    Args:
        lengths: of the B examples in tokens, <eos> not counted, on the model's device.
    """

    def __init__(self, lengths: Int[Tensor, " B"]) -> None:
        self.lengths = lengths

    def forbid(
        self, log_probs: Float[Tensor, "N V"], prefixes: Int[Tensor, "N T"], examples: Int[Tensor, " N"], eos: int
    ) -> None:
        """Forbid <eos> before the length, and everything else at it."""
        is_at_length = (prefixes.size(1) >= self.lengths[examples]).unsqueeze(1)
        is_eos = torch.arange(log_probs.size(1), device=log_probs.device) == eos
        log_probs.masked_fill_(is_at_length != is_eos, -torch.inf)


class GivenTokens(Constraint):
    """Some tokens of each hypothesis are given by their place; log p is that of the others, after these.

    Args:
        tokens: those of the B examples, ``pad`` where the model chooses, on the model's device.
        pad: id of <pad>.
    """

    def __init__(self, tokens: Int[Tensor, "B L"], *, pad: int) -> None:
        self.tokens, self.pad = tokens, pad

    def forbid(
        self, log_probs: Float[Tensor, "N V"], prefixes: Int[Tensor, "N T"], examples: Int[Tensor, " N"], eos: int
    ) -> None:
        """Forbid all others where one is given, whose log p becomes 0."""
        if prefixes.size(1) >= self.tokens.size(1):
            return
        token = self.tokens[examples, prefixes.size(1)].unsqueeze(1)
        is_given, is_token = token != self.pad, torch.arange(log_probs.size(1), device=log_probs.device) == token
        log_probs.masked_fill_(is_given & ~is_token, -torch.inf).masked_fill_(is_given & is_token, 0.0)


class NoRepeatedNgram(Constraint):
    """No sequence of n tokens occurs twice in a hypothesis (Paulus et al. 2018, section 2.5, with n = 3).

    Args:
        n: tokens of a sequence.
    """

    def __init__(self, n: int) -> None:
        self.n = n

    def forbid(
        self, log_probs: Float[Tensor, "N V"], prefixes: Int[Tensor, "N T"], examples: Int[Tensor, " N"], eos: int
    ) -> None:
        """Forbid what stood behind an earlier occurrence of the last n - 1 tokens."""
        T = prefixes.size(1)
        if self.n > T:
            return
        windows = prefixes.unfold(1, self.n, 1)
        last = prefixes[:, T - self.n + 1 :].unsqueeze(1)
        is_same = (windows[:, :, :-1] == last).all(dim=-1)
        highest = torch.full_like(is_same, torch.inf, dtype=log_probs.dtype).masked_fill(is_same, -torch.inf)
        log_probs.scatter_reduce_(1, windows[:, :, -1], highest, reduce="amin")


def constrain(
    log_probs: Float[Tensor, "N V"],
    constraints: Sequence[Constraint],
    prefixes: Int[Tensor, "N T"],
    examples: Int[Tensor, " N"],
    *,
    eos: int,
) -> None:
    """Apply ``constraints`` in place. Where they leave no token, <eos> is allowed, so that the hypothesis ends."""
    unconstrained = log_probs[:, eos].clone()
    for constraint in constraints:
        constraint.forbid(log_probs, prefixes, examples, eos)
    nothing_left = (log_probs == -torch.inf).all(dim=1)
    log_probs[:, eos] = torch.where(nothing_left, unconstrained, log_probs[:, eos])
