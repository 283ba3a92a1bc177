"""Scheduled sampling: training reads some of the model's own tokens, as decoding does (Bengio et al. 2015).

At every position the token of the reference is replaced with a probability that grows with the updates. The paper goes
step by step. Here all positions are replaced at once, from logits of a pass over the known target without gradient, so
that every arm keeps its parallel or compiled form (Mihaylova and Martins 2019; Duckworth et al. 2019). After one pass a
token is what the model says after the reference; each further pass lets it see one more of its own tokens, and as many
passes as there are tokens are the paper's. Each costs another forward pass of the decoder in every update.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from attnspan.data.tokenizer import BOS, EOS, PAD
from attnspan.errors import SettingError, check_counts, check_numbers
from attnspan.models.memory import Memory
from attnspan.models.seq2seq import Seq2Seq


class ScheduledSampling(ABC):
    """Replaces tokens that the decoder reads in training.

    Args:
        passes: forward passes of the decoder ahead of the one that is trained.
    """

    def __init__(self, *, passes: int) -> None:
        check_counts(passes=passes)
        self.passes = passes

    @abstractmethod
    def ratio(self, update: int) -> float:
        """The probability that a token is replaced, after so many updates."""

    def __call__(
        self, model: Seq2Seq, memory: Memory, target_input: Tensor, *, update: int, given: Tensor | None = None
    ) -> Tensor:
        """What the decoder reads in place of ``target_input`` [B, T]; ``<bos>`` and padding stay.

        So do ``given`` tokens, marked in the target that ends with ``<eos>``: one place before they are read.

        The model's token is the likeliest one that decoding would go on after: neither ``<eos>`` nor padding.
        """
        ratio = self.ratio(update)
        if ratio == 0:
            return target_input
        replaced = torch.rand(target_input.shape, device=target_input.device) < ratio
        replaced &= (target_input != PAD) & (target_input != BOS)
        if given is not None:
            replaced[:, 1:] &= ~given[:, :-1]
        read = target_input
        with torch.no_grad():
            for _ in range(self.passes):
                logits, _ = model.unroll(read, memory)
                logits[..., : EOS + 1] = -torch.inf  # <pad>, <bos>, <eos>
                said = torch.cat([target_input[:, :1], logits[:, :-1].argmax(dim=-1)], dim=1)
                read = torch.where(replaced, said, target_input)
        return read


class LinearScheduledSampling(ScheduledSampling):
    """From 0 at update ``begin`` the ratio grows to ``final_ratio`` at ``end``, and stays (section 2.4, "linear").

    Args:
        begin: updates without any.
        end: updates after which the ratio is the final one.
        final_ratio: probability.
        passes: see :class:`ScheduledSampling`.
    """

    def __init__(self, *, begin: int, end: int, final_ratio: float, passes: int) -> None:
        super().__init__(passes=passes)
        check_numbers(begin=begin)
        check_counts(end=end)
        check_numbers(final_ratio=final_ratio)
        if final_ratio > 1:
            raise SettingError("final_ratio", f"must be at most 1, not {final_ratio}")
        if end <= begin:
            raise SettingError("end", f"must be more than begin={begin}, not {end}")
        self.begin, self.end, self.final_ratio = begin, end, final_ratio

    def ratio(self, update: int) -> float:
        """See the class."""
        return self.final_ratio * min(max((update - self.begin) / (self.end - self.begin), 0.0), 1.0)


class InverseSigmoidScheduledSampling(ScheduledSampling):
    """After i updates the reference is read with probability k / (k + exp(i / k)) (section 2.4, "inverse sigmoid").

    Args:
        k: the larger, the later: half of the tokens are replaced after k ln k updates.
        passes: see :class:`ScheduledSampling`.
    """

    def __init__(self, *, k: float, passes: int) -> None:
        super().__init__(passes=passes)
        check_numbers(k=k)
        if k < 1:
            raise SettingError("k", f"must be at least 1, not {k}")
        self.k = k

    def ratio(self, update: int) -> float:
        """1 - k / (k + exp(i / k)), without overflow."""
        return 1 / (1 + self.k * math.exp(-update / self.k))
