"""Weights and contexts of one step without gradients, in one pass over the memory, for decoding on a CPU.

``mask`` is True at real positions, ``states`` are 0 in padding, and the weights are a softmax over all real positions,
0 elsewhere. These kernels need :func:`~attnspan.kernels.backend.uses_numba`.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor


def attend_additively(
    factors: Float[Tensor, "B A P"],
    states: Float[Tensor, "B S M"],
    mask: Bool[Tensor, "B S"],
    energy: Float[Tensor, " A"],
    queries: Float[Tensor, "B K A"],
) -> tuple[Float[Tensor, "B K M"], Float[Tensor, "B K S"]]:
    """Contexts and weights for the scores v^T tanh(q + k_s), of K queries to each source.

    ``factors`` are the keys' :func:`~attnspan.kernels.additive.key_factors`.
    """
    from attnspan.kernels.compiled import attend

    contexts = states.new_empty(*queries.shape[:2], states.size(2))
    weights = states.new_empty(*queries.shape[:2], states.size(1))
    attend(factors, states.contiguous(), mask.contiguous(), energy.detach(), queries.contiguous(), weights, contexts)
    return contexts, weights


def attend_by_products(
    states: Float[Tensor, "B S M"], mask: Bool[Tensor, "B S"], queries: Float[Tensor, "B 1 M"]
) -> tuple[Float[Tensor, "B 1 M"], Float[Tensor, "B 1 S"]]:
    """Contexts and weights for the scores q^T h_s, of one query to each source."""
    from attnspan.kernels.compiled_products import attend_by_product

    contexts = states.new_empty(states.size(0), states.size(2))
    weights = states.new_empty(states.size(0), 1, states.size(1))
    attend_by_product(states.contiguous(), mask.contiguous(), queries.squeeze(1).contiguous(), weights, contexts)
    return contexts.unsqueeze(1), weights
