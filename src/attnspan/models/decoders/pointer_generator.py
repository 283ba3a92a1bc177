"""Copying: a step generates a token of the vocabulary or points to a token of the source (See et al. 2017)."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.models.decoders.base import Sizes


class PointerGenerator(nn.Module):
    """p_gen = sigmoid(w_c c_t + w_s s_t + w_y y_{t-1} + b)  (See et al. 2017, eq. 8), with y the embedded token.

    P(w) = p_gen P_vocab(w) + (1 - p_gen) sum_{j: x_j = w} alpha_tj  (eq. 9)

    P is a distribution over V + S ids. Those from V on are words of the source that the vocabulary lacks, of which a
    source of S tokens has at most S: so the shapes do not depend on what is in it. An id without a word has P = 0.
    OpenNMT's ``p_copy`` is 1 - p_gen.

    Args:
        sizes: of the decoder.
    """

    def __init__(self, *, sizes: Sizes) -> None:
        super().__init__()
        self.gate = nn.Linear(sizes.memory + sizes.hidden + sizes.embedding, 1)  # [w_c; w_s; w_y], b

    def generation_logit(
        self, context: Float[Tensor, "B T M"], state: Float[Tensor, "B T H"], embedded: Float[Tensor, "B T E"]
    ) -> Float[Tensor, "B T 1"]:
        """The argument of the sigmoid."""
        return self.gate(torch.cat([context, state, embedded], dim=-1))

    def forward(
        self,
        logits: Float[Tensor, "B T V"],
        generation_logit: Float[Tensor, "B T 1"],
        weights: Float[Tensor, "B T S"],
        in_target: Int[Tensor, "B S"],
    ) -> Float[Tensor, "B T W"]:
        """log P, W = V + S, at least in float32.

        Args:
            logits: of P_vocab.
            generation_logit: of p_gen.
            weights: alpha; each row sums to 1.
            in_target: x, the ids of the source tokens, those from V on numbered without gaps; 0 in padding.
        """
        precision = torch.promote_types(logits.dtype, torch.float32)
        logits, generation_logit, weights = (part.to(precision) for part in (logits, generation_logit, weights))
        generated = F.logsigmoid(generation_logit) + torch.log_softmax(logits, dim=-1)
        generated = F.pad(generated, (0, weights.size(-1)), value=-torch.inf)
        same = in_target.unsqueeze(1) == in_target.unsqueeze(2)
        with torch.autocast(weights.device.type, enabled=False):  # a product would be in half precision
            pointed_at = weights @ same.to(precision)  # at each position the weights of its word at all positions
        # Clamped first, for the logarithm of 0 has no gradient. What it adds to a generated word is lost in rounding.
        copied = F.logsigmoid(-generation_logit) + pointed_at.clamp(min=torch.finfo(precision).tiny).log()
        ids = in_target.unsqueeze(1).expand(-1, weights.size(1), -1)
        mixed = torch.logaddexp(generated.gather(2, ids), copied)
        is_first = ~same.tril(-1).any(dim=-1).unsqueeze(1)
        mixed = torch.where(is_first, mixed, mixed.detach())  # or the gradient of a word would count at each position
        return generated.scatter(2, ids, mixed)


class BuildPointer(Protocol):
    """:class:`PointerGenerator` (``_partial_: true`` in the config)."""

    def __call__(self, *, sizes: Sizes) -> PointerGenerator:
        """Build it for these sizes."""
