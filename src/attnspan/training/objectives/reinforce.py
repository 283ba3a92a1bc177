"""REINFORCE: the gradient through positions that hard attention has drawn, in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.data.tokenizer import PAD
from attnspan.models.attention.entmax import in_float32
from attnspan.models.attention.hard import HardSoftmax
from attnspan.models.decoders.base import DecoderOutput


class Reinforce(nn.Module):
    """-lambda_r (R - b T) sum_t log alpha_{t,a_t} - lambda_e sum_t H(alpha_t)  (Xu et al. 2015, section 4.1).

    For each example, with R = log p(y | a, x), <eos> among the T tokens. R is a constant here: its own gradient is that
    of the cross-entropy. An example that takes the expectation has no first term. H is in nats.

    Only the gradient of the first term means anything. So its value is left out, and the loss that training logs stays
    one of likelihood.

    After each update b = d b + (1 - d) R / T, with R and T summed over the examples of the batch; before the first b is
    0. In the paper b is of R itself, which is the same where all targets have one length. Here batches differ in
    length, so b is in nats a token. It is a buffer, so checkpoints have it.

    Args:
        normaliser: has the settings.
    """

    baseline: Tensor

    def __init__(self, normaliser: HardSoftmax) -> None:
        super().__init__()
        self.reward_weight, self.entropy_weight = normaliser.reward_weight, normaliser.entropy_weight
        self.decay = normaliser.baseline_decay
        self.register_buffer("baseline", torch.zeros(()))

    @classmethod
    def of(cls, model: nn.Module) -> Reinforce | None:
        """That of a model with hard attention; None for other models."""
        normaliser = next((part for part in model.modules() if isinstance(part, HardSoftmax)), None)
        return None if normaliser is None else cls(normaliser)

    def forward(self, logits: Tensor, decoded: DecoderOutput, target_output: Tensor) -> Tensor:
        """The sum over the examples of the batch, to be added to the sum of the cross-entropy; moves the baseline.

        Args:
            logits: [B, T, V].
            decoded: the steps, in training.
            target_output: [B, T].
        """
        assert decoded.weights is not None
        assert decoded.choices is not None
        is_token, weights = target_output != PAD, in_float32(decoded.weights)
        nll = F.cross_entropy(
            in_float32(logits.detach()).flatten(0, 1), target_output.flatten(), ignore_index=PAD, reduction="none"
        )
        reward, T = -nll.view_as(is_token).sum(dim=1), is_token.sum(dim=1)
        logs = weights.clamp(min=torch.finfo(weights.dtype).tiny).log()
        chosen = (decoded.choices * logs).sum(dim=-1).masked_fill(~is_token, 0.0).sum(dim=1)
        entropy = -(weights * logs).sum(dim=-1).masked_fill(~is_token, 0.0).sum()
        surrogate = -self.reward_weight * ((reward - self.baseline * T) * chosen).sum()
        self._move(reward.sum(), T.sum())
        return surrogate - surrogate.detach() - self.entropy_weight * entropy

    @torch.no_grad()
    def _move(self, reward: Tensor, tokens: Tensor) -> None:
        """Processes that share a batch move the baseline alike."""
        sums = torch.stack([reward, tokens.to(reward.dtype)])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        self.baseline.copy_(self.decay * self.baseline + (1 - self.decay) * sums[0] / sums[1].clamp(min=1))
