"""Search: from a memory to hypotheses. One implementation for every decoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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
        if self.ratio < 0 or self.margin < 0 or self.ratio + self.margin < 1:
            raise ValueError(
                f"search.limit: ratio {self.ratio} and margin {self.margin} leave no room for a single token"
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
        weights: [B, T, S] attention weights, 0 in padding; None where the wiring has none or none were asked for.
    """

    tokens: Tensor
    lengths: Tensor
    log_prob: Tensor
    truncated: Tensor
    weights: Tensor | None


class Greedy:
    """y_t = argmax p(y | y_1 ... y_{t-1}, x), freely running until <eos> or the limit.

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
        state = model.decoder.start(memory)
        B, device = source.size(0), source.device
        limits = self.limit(lengths)
        horizon = int(limits.max())
        limits = limits.to(device, non_blocking=True)

        # One step more than the longest limit: there <eos> may still come, and anything else is a truncation.
        tokens = torch.full((B, horizon + 1), specials.pad, dtype=torch.long, device=device)
        log_prob = torch.zeros(B, device=device)
        truncated = torch.zeros(B, dtype=torch.bool, device=device)
        weights: Tensor | None = None

        rows = torch.arange(B, device=device)  # examples that are still running, the rows of memory and state
        previous = torch.full((B,), specials.bos, dtype=torch.long, device=device)
        done = torch.zeros(B, dtype=torch.bool, device=device)
        for t in range(horizon + 1):
            logits, decoded = model.step(previous, state, memory)
            state = decoded.state
            scores = torch.log_softmax(logits.float(), dim=-1)
            scores[:, [specials.pad, specials.bos]] = -torch.inf  # never a next token
            best, token = scores.max(dim=-1)
            cut = ~done & (token != specials.eos) & (limits[rows] <= t)
            truncated[rows] |= cut
            done = done | cut
            log_prob[rows] += torch.where(done, 0.0, best)
            tokens[rows, t] = torch.where(done, specials.pad, token)
            if with_weights and decoded.weights is not None:
                if weights is None:
                    weights = decoded.weights.new_zeros(B, horizon + 1, source.size(1))
                ends = done | (token == specials.eos)
                weights[rows, t] = decoded.weights.squeeze(1).masked_fill(ends.unsqueeze(1), 0.0)
            done = done | (token == specials.eos)
            previous = token
            if t % self.CHECK_EVERY == self.CHECK_EVERY - 1:
                running = (~done).nonzero().squeeze(1)
                if len(running) == 0:
                    break
                if len(running) < len(rows):
                    rows, previous, done = rows[running], previous[running], done[running]
                    memory, state = memory.select(running), tuple(part[running] for part in state)

        words = (tokens != specials.pad) & (tokens != specials.eos)
        longest = int(words.sum(dim=1).max())
        return Hypotheses(
            tokens=tokens[:, :longest].masked_fill(~words[:, :longest], specials.pad),
            lengths=words.sum(dim=1),
            log_prob=log_prob,
            truncated=truncated,
            weights=None if weights is None else weights[:, :longest],
        )
