"""The interface of a decoding strategy: from a memory to hypotheses. Each strategy is written once for all decoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnspan.errors import SettingError
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import State
from attnspan.models.seq2seq import Seq2Seq


@dataclass(frozen=True, kw_only=True)
class Specials:
    """Ids of the special tokens: padding, begin and end of a sequence."""

    pad: int
    bos: int
    eos: int


@dataclass(frozen=True, kw_only=True)
class Hypotheses:
    """What decoding found for B sources."""

    tokens: Int[Tensor, "B T"]
    """Without <eos>, padded."""
    lengths: Int[Tensor, " B"]
    """Number of tokens."""
    log_prob: Float[Tensor, " B"]
    """log p(tokens, <eos> | source) in nats; of the tokens alone where truncated."""
    truncated: Bool[Tensor, " B"]
    """The limit was reached before <eos>."""
    weights: Float[Tensor, "B T S"] | None = None
    """0 in padding. None where the wiring has none, where they were not requested, or if all hypotheses are empty."""


class DecodingStrategy(ABC):
    """Finds a hypothesis for each of B sources, no longer than ``limit``, the same whatever else is in the batch."""

    CHECK_EVERY = 8
    """Steps between two checks of which examples are finished: each makes a GPU wait, and lets the batch shrink."""

    def __init__(self, *, limit: LengthLimit) -> None:
        if not isinstance(limit, LengthLimit):
            raise SettingError("limit", f"must be a length limit, not {limit!r}")
        self.limit = limit

    @torch.no_grad()
    def __call__(
        self,
        model: Seq2Seq,
        source: Int[Tensor, "B S"],
        lengths: Int[Tensor, " B"],
        *,
        specials: Specials,
        with_weights: bool = False,
    ) -> Hypotheses:
        """Decode sources; ``lengths`` are on the CPU. The caller sets the model's mode (train, eval)."""
        memory = model.encode(source, lengths)
        hypotheses = self.decode(model, memory, self.limit(lengths), specials)
        weights = _weights(model, memory, hypotheses, specials) if with_weights else None
        return replace(hypotheses, weights=weights)

    @abstractmethod
    def decode(self, model: Seq2Seq, memory: Memory, limits: Int[Tensor, " B"], specials: Specials) -> Hypotheses:
        """Decode from a prepared memory, with at most ``limits`` tokens (on the CPU), without weights."""

    @staticmethod
    def next_log_probs(
        model: Seq2Seq, previous: Int[Tensor, " B"], state: State, memory: Memory, specials: Specials
    ) -> tuple[Float[Tensor, "B V"], State]:
        """log p of the token after ``previous``, -inf for <pad> and <bos>, and the state after ``previous``."""
        logits, decoded = model.step(previous, state, memory)
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        log_probs[:, specials.pad] = -torch.inf
        log_probs[:, specials.bos] = -torch.inf
        return log_probs, decoded.state

    @staticmethod
    def make_hypotheses(
        tokens: Int[Tensor, "B T"], log_prob: Float[Tensor, " B"], truncated: Bool[Tensor, " B"], specials: Specials
    ) -> Hypotheses:
        """Cut tokens, padded after their <eos> or end, to the longest hypothesis."""
        is_token = (tokens != specials.pad) & (tokens != specials.eos)
        lengths = is_token.sum(dim=1)
        tokens = tokens.masked_fill(~is_token, specials.pad)[:, : int(lengths.max())]
        return Hypotheses(tokens=tokens, lengths=lengths, log_prob=log_prob, truncated=truncated)


def _weights(model: Seq2Seq, memory: Memory, hypotheses: Hypotheses, specials: Specials) -> Tensor | None:
    """The attention weights of the hypotheses: the decoder reads them once more."""
    if hypotheses.tokens.size(1) == 0:
        return None
    begin = torch.full_like(hypotheses.tokens[:, :1], specials.bos)
    target_input = torch.cat([begin, hypotheses.tokens[:, :-1]], dim=1)
    weights = model.decoder.unroll(model.dropout(model.target_embedding(target_input)), memory).weights
    if weights is None:
        return None
    return weights.masked_fill((hypotheses.tokens == specials.pad).unsqueeze(-1), 0.0)
