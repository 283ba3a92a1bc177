"""DecodingStrategy: from a memory to hypotheses. Greedy and beam, each one implementation for every decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import State
from attnspan.models.seq2seq import Seq2Seq


@dataclass(frozen=True, kw_only=True)
class Specials:
    """Token ids that the search must know: padding, begin and end of a sequence."""

    pad: int
    bos: int
    eos: int


@dataclass(frozen=True, kw_only=True)
class LengthLimit:
    """A hypothesis of a source with S tokens has at most ``ratio * S + margin`` tokens, <eos> not counted.

    It is a matter of the example alone, so a hypothesis cannot depend on what else is in the batch.
    """

    ratio: float
    margin: int

    def __post_init__(self) -> None:
        if not isinstance(self.ratio, int | float) or not isinstance(self.margin, int):
            raise ValueError(
                f"decoding.limit: ratio {self.ratio!r} must be a number and margin {self.margin!r} a whole one"
            )
        if self.ratio < 0 or self.margin < 0 or self.ratio + self.margin < 1:
            raise ValueError(
                f"decoding.limit: ratio {self.ratio} and margin {self.margin} leave no room for a single token"
            )

    def __call__(self, lengths: Tensor) -> Tensor:
        """Limits [B] for source lengths [B]."""
        return (self.ratio * lengths).long() + self.margin


@dataclass(frozen=True, kw_only=True)
class Hypotheses:
    """What a search found for B sources.

    Attributes:
        tokens: [B, T] int64 without <eos>, padded.
        lengths: [B] number of tokens.
        log_prob: [B] log p(tokens, <eos> | source) in nats; of the tokens alone where truncated.
        truncated: [B] bool, the limit was reached before <eos>.
        weights: [B, T, S] attention weights, 0 in padding; None where the wiring has none, none were asked for, or all
            hypotheses are empty.
    """

    tokens: Tensor
    lengths: Tensor
    log_prob: Tensor
    truncated: Tensor
    weights: Tensor | None


class DecodingStrategy(ABC):
    """Finds a hypothesis for each of B sources, the same whatever else is in the batch.

    Args:
        limit: how long a hypothesis may become.
    """

    CHECK_EVERY = 8
    """Steps between two looks at which examples are done: each look makes a GPU wait, and lets a batch shrink."""

    def __init__(self, *, limit: LengthLimit) -> None:
        self.limit = limit

    @torch.no_grad()
    def __call__(
        self, model: Seq2Seq, source: Tensor, lengths: Tensor, *, specials: Specials, with_weights: bool = False
    ) -> Hypotheses:
        """Decode source [B, S] int64 with lengths [B] (on the CPU). The model's mode (train, eval) is the caller's."""
        memory = model.encode(source, lengths)
        found = self.decode(model, memory, self.limit(lengths), specials)
        return replace(found, weights=_weights(model, memory, found, specials)) if with_weights else found

    @abstractmethod
    def decode(self, model: Seq2Seq, memory: Memory, limits: Tensor, specials: Specials) -> Hypotheses:
        """DecodingStrategy from a prepared memory, with at most ``limits`` [B] tokens (on the CPU), without weights."""


def next_log_probs(
    model: Seq2Seq, previous: Tensor, state: State, memory: Memory, specials: Specials
) -> tuple[Tensor, State]:
    """log p [B, V] of the next token, -inf for those that never are one, and the state behind ``previous`` [B]."""
    logits, decoded = model.step(previous, state, memory)
    scores = torch.log_softmax(logits.float(), dim=-1)
    scores[:, specials.pad] = -torch.inf
    scores[:, specials.bos] = -torch.inf
    return scores, decoded.state


def make_hypotheses(tokens: Tensor, log_prob: Tensor, truncated: Tensor, specials: Specials) -> Hypotheses:
    """Cut tokens [B, T'], padded behind their <eos> or end, to the longest hypothesis."""
    words = (tokens != specials.pad) & (tokens != specials.eos)
    lengths = words.sum(dim=1)
    tokens = tokens.masked_fill(~words, specials.pad)[:, : int(lengths.max())]
    return Hypotheses(tokens=tokens, lengths=lengths, log_prob=log_prob, truncated=truncated, weights=None)


def _weights(model: Seq2Seq, memory: Memory, found: Hypotheses, specials: Specials) -> Tensor | None:
    """The weights [B, T, S] with which the hypotheses were made: the decoder reads them once more."""
    if found.tokens.size(1) == 0:
        return None
    begin = torch.full_like(found.tokens[:, :1], specials.bos)
    read = torch.cat([begin, found.tokens[:, :-1]], dim=1)
    weights = model.decoder.unroll(model.dropout(model.target_embedding(read)), memory).weights
    if weights is None:
        return None
    return weights.masked_fill((found.tokens == specials.pad).unsqueeze(-1), 0.0)
