"""The best n hypotheses of each example so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(kw_only=True)
class NBest:
    """n places for each of B examples, the best first; -inf is the score of an empty one.

    Of equal scores the earlier comes first, so the order does not depend on the batch.
    """

    score: Float[Tensor, "B n"]
    """What hypotheses are ordered by."""
    log_prob: Float[Tensor, "B n"]
    tokens: Int[Tensor, "B n T"]

    @classmethod
    def empty(cls, examples: int, places: int, length: int, *, pad: int, device: torch.device) -> Self:
        """So many places for hypotheses of at most ``length`` tokens."""
        score = torch.full((examples, places), -torch.inf, device=device)
        tokens = torch.full((examples, places, length), pad, dtype=torch.long, device=device)
        return cls(score=score, log_prob=score.clone(), tokens=tokens)

    def add(
        self,
        examples: Int[Tensor, " R"],
        *,
        score: Float[Tensor, "R K"],
        log_prob: Float[Tensor, "R K"],
        tokens: Int[Tensor, "R K T"],
    ) -> None:
        """Keep the best of what is here and of K new hypotheses for each of the R ``examples``."""
        n = self.score.size(1)
        both = torch.cat([self.score[examples], score], dim=1)
        self.score[examples], order = (part[:, :n] for part in both.sort(dim=1, descending=True, stable=True))
        self.log_prob[examples] = torch.cat([self.log_prob[examples], log_prob], dim=1).gather(1, order)
        is_new = order >= n
        old, new = order.masked_fill(is_new, 0), (order - n).clamp(min=0)
        self.tokens[examples] = torch.where(is_new.unsqueeze(-1), _take(tokens, new), _take(self.tokens[examples], old))

    def followed_by(self, other: NBest) -> tuple[NBest, Bool[Tensor, "B n"]]:
        """The best n of both, where any of ours is better than all of ``other``, and which are of ``other``."""
        n = self.score.size(1)
        is_empty = torch.cat([self.score, other.score], dim=1) == -torch.inf
        order = is_empty.int().sort(dim=1, stable=True).indices[:, :n]
        score, log_prob = (
            torch.cat([getattr(self, name), getattr(other, name)], dim=1).gather(1, order)
            for name in ("score", "log_prob")
        )
        tokens = _take(torch.cat([self.tokens, other.tokens], dim=1), order)
        return NBest(score=score, log_prob=log_prob, tokens=tokens), (order >= n) & (score > -torch.inf)


def _take(tokens: Int[Tensor, "B N T"], which: Int[Tensor, "B n"]) -> Int[Tensor, "B n T"]:
    return tokens.gather(1, which.unsqueeze(-1).expand(-1, -1, tokens.size(-1)))
