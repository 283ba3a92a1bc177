"""Hard attention: a step looks at one position, which it draws in training and chooses in evaluation."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from attnspan.errors import SettingError, check_numbers
from attnspan.models.attention.normalisers import Softmax
from attnspan.models.recurrence.recurrence import State


class HardSoftmax(Softmax):
    """c_t = h_a, a ~ alpha_t = softmax(e_t)  (Xu et al. 2015, section 4.1, "stochastic hard attention").

    In training a is drawn at each step. With a probability, for all steps of an example, the context is the expectation
    sum_j alpha_tj h_j instead, as for every other normaliser. In evaluation a is the position with the largest weight,
    the first of several: weights are 1 there and 0 elsewhere, and decoding draws nothing.

    The drawn position has no gradient: training adds REINFORCE
    (:class:`~attnspan.training.objectives.reinforce.Reinforce`), whose settings are here.

    Args, besides the sizes:
        expectation_share: probability of the expectation, 1/2 in the paper.
        reward_weight: lambda_r, of the gradient through the choice; with 1 it is unbiased.
        entropy_weight: lambda_e, of the entropy of alpha_t in nats, which rises.
        baseline_decay: of the moving average of earlier rewards, 0.9 in the paper.

    Raises:
        SettingError: a setting cannot be, or there are several heads.
    """

    def __init__(
        self,
        *,
        query_size: int,
        heads: int,
        expectation_share: float,
        reward_weight: float,
        entropy_weight: float,
        baseline_decay: float,
    ) -> None:
        super().__init__(query_size=query_size, heads=heads)
        if heads != 1:
            raise SettingError("_target_", f"looks at one position a step, and so has one head, not {heads}")
        check_numbers(expectation_share=expectation_share, baseline_decay=baseline_decay, below=1)
        check_numbers(reward_weight=reward_weight, entropy_weight=entropy_weight)
        self.expectation_share = expectation_share
        self.reward_weight, self.entropy_weight = reward_weight, entropy_weight
        self.baseline_decay = baseline_decay

    def start(self, mask: Bool[Tensor, "B S"]) -> State:
        """Which examples draw their positions, [B]; in evaluation none does."""
        if not self.training:
            return (mask.new_zeros(mask.size(0)),)
        return (torch.rand(mask.size(0), device=mask.device) >= self.expectation_share,)

    def weights(self, scores: Float[Tensor, "B 1 T S"]) -> Float[Tensor, "B 1 T S"]:
        """alpha, or in evaluation 1 at the chosen position."""
        if self.training:
            return super().weights(scores)
        return F.one_hot(scores.argmax(dim=-1), scores.size(-1)).to(scores.dtype)

    def choose(self, weights: Float[Tensor, "B 1 T S"], *state: Tensor) -> Float[Tensor, "B 1 T S"] | None:
        """1 at drawn positions, rows of 0 for examples that draw none; None in evaluation. No gradient."""
        if not self.training:
            return None
        # The smallest of exponential times with rates alpha; torch.multinomial would wait for the GPU.
        times = torch.empty_like(weights).exponential_().clamp(min=torch.finfo(weights.dtype).tiny)
        drawn = F.one_hot((weights.detach() / times).argmax(dim=-1), weights.size(-1))
        return (drawn * state[0].view(-1, 1, 1, 1)).to(weights.dtype)
