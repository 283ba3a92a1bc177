"""Search: from a memory to hypotheses. Greedy and beam, each one implementation for every decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attnspan.models.memory import Memory
from attnspan.models.recurrence import State
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
                f"search.limit: ratio {self.ratio!r} must be a number and margin {self.margin!r} a whole one"
            )
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
        weights: [B, T, S] attention weights, 0 in padding; None where the wiring has none, none were asked for, or all
            hypotheses are empty.
    """

    tokens: Tensor
    lengths: Tensor
    log_prob: Tensor
    truncated: Tensor
    weights: Tensor | None


class Search(ABC):
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
        found = self.search(model, memory, self.limit(lengths), specials)
        return replace(found, weights=_weights(model, memory, found, specials)) if with_weights else found

    @abstractmethod
    def search(self, model: Seq2Seq, memory: Memory, limits: Tensor, specials: Specials) -> Hypotheses:
        """Search from a prepared memory, with at most ``limits`` [B] tokens (on the CPU), without weights."""


class Greedy(Search):
    """y_t = argmax p(y | y_1 ... y_{t-1}, x), freely running until <eos> or the limit."""

    def search(self, model: Seq2Seq, memory: Memory, limits: Tensor, specials: Specials) -> Hypotheses:
        """Take the most likely token at every step."""
        B, device, horizon = len(limits), memory.states.device, int(limits.max())
        limits = limits.to(device, non_blocking=True)
        # One step more than the longest limit: there <eos> may still come, and anything else is a truncation.
        tokens = torch.full((B, horizon + 1), specials.pad, dtype=torch.long, device=device)
        log_prob = torch.zeros(B, device=device)
        truncated = torch.zeros(B, dtype=torch.bool, device=device)

        rows = torch.arange(B, device=device)  # examples that are still running, the rows of memory and state
        state = model.decoder.start(memory)
        previous = torch.full((B,), specials.bos, dtype=torch.long, device=device)
        done = torch.zeros(B, dtype=torch.bool, device=device)
        for t in range(horizon + 1):
            scores, state = _next(model, previous, state, memory, specials)
            best, previous = scores.max(dim=-1)
            cut = ~done & (previous != specials.eos) & (limits[rows] <= t)
            truncated[rows] |= cut
            done = done | cut
            log_prob[rows] += torch.where(done, 0.0, best)
            tokens[rows, t] = torch.where(done, specials.pad, previous)
            done = done | (previous == specials.eos)
            if t % self.CHECK_EVERY == self.CHECK_EVERY - 1:
                running = (~done).nonzero().squeeze(1)
                if len(running) == 0:
                    break
                if len(running) < len(rows):
                    rows, previous, done = rows[running], previous[running], done[running]
                    memory, state = memory.select(running), tuple(part[running] for part in state)
        return _hypotheses(tokens, log_prob, truncated, specials)


class Beam(Search):
    """Keep the ``beam_size`` likeliest prefixes at every step (Graves 2012, section 2.5; Bahdanau et al. 2015, 4.2).

    A prefix that ends gives up its place in the beam, so a beam of one is greedy search. Among the ended ones the best
    is the one with the highest log p / n^a, where n counts its tokens and <eos>, and a is ``length_normalisation``.
    The search of an example stops when no place is left, or when nothing that still runs can beat the best.

    Args:
        limit: how long a hypothesis may become.
        beam_size: places in the beam.
        length_normalisation: a; 0 compares log p as it is.

    Raises:
        ValueError: a beam without a place, or a negative exponent.
    """

    def __init__(self, *, limit: LengthLimit, beam_size: int, length_normalisation: float) -> None:
        super().__init__(limit=limit)
        if beam_size < 1:
            raise ValueError(f"search.beam_size={beam_size} must be at least 1")
        if length_normalisation < 0:
            raise ValueError(f"search.length_normalisation={length_normalisation} must not be negative")
        self.beam_size = beam_size
        self.length_normalisation = length_normalisation

    def search(self, model: Seq2Seq, memory: Memory, limits: Tensor, specials: Specials) -> Hypotheses:
        """Search with K = ``beam_size`` rows an example: row b K + k is place k of example b."""
        K, B, device, horizon = self.beam_size, len(limits), memory.states.device, int(limits.max())
        limits = limits.to(device, non_blocking=True)
        best = torch.full((B,), -torch.inf, device=device)  # normalised
        log_prob = torch.zeros(B, device=device)
        tokens = torch.full((B, horizon + 1), specials.pad, dtype=torch.long, device=device)
        truncated = torch.zeros(B, dtype=torch.bool, device=device)

        rows = torch.arange(B, device=device)  # examples that are still running
        memory = memory.select(rows.repeat_interleave(K))
        state = model.decoder.start(memory)
        previous = torch.full((B * K,), specials.bos, dtype=torch.long, device=device)
        prefixes = torch.full((B, K, horizon + 1), specials.pad, dtype=torch.long, device=device)
        scores = torch.full((B, K), -torch.inf, device=device)  # log p of the prefixes; -inf where a place is empty
        scores[:, 0] = 0.0
        places = torch.full((B,), K, device=device)
        for t in range(horizon + 1):
            step, state = _next(model, previous, state, memory, specials)
            V = step.size(-1)
            top, at = (scores.unsqueeze(-1) + step.view(-1, K, V)).flatten(1).topk(K, dim=1)
            parent, token = at // V, at % V
            top = top.masked_fill(torch.arange(K, device=device) >= places.unsqueeze(1), -torch.inf)
            ended, full = token == specials.eos, (limits[rows] <= t).unsqueeze(1)

            # What ends here, if it beats what ended before.
            value, which = (top / (t + 1) ** self.length_normalisation).masked_fill(~ended, -torch.inf).max(dim=1)
            chosen = value > best[rows]
            self._keep(chosen, rows, which, prefixes, parent, top, (tokens, log_prob))
            best[rows] = torch.where(chosen, value, best[rows])
            # What is cut here, only where nothing has ended: the prefix without its next token.
            before = scores.gather(1, parent)
            value, which = before.masked_fill(ended | ~full | (top == -torch.inf), -torch.inf).max(dim=1)
            chosen = (value > -torch.inf) & (best[rows] == -torch.inf)
            self._keep(chosen, rows, which, prefixes, parent, before, (tokens, log_prob))
            truncated[rows] |= chosen

            places = places - (ended & (top > -torch.inf)).sum(dim=1)
            scores = top.masked_fill(ended | full, -torch.inf)
            prefixes = prefixes.gather(1, parent.unsqueeze(-1).expand_as(prefixes))
            prefixes[:, :, t] = token
            previous = token.flatten()
            moved = (torch.arange(len(rows), device=device).unsqueeze(1) * K + parent).flatten()
            state = tuple(part[moved] for part in state)
            if t % self.CHECK_EVERY == self.CHECK_EVERY - 1:
                # log p only falls, so this is the most that a running prefix can come to.
                bound = scores.max(dim=1).values / (limits[rows] + 1) ** self.length_normalisation
                running = (bound > best[rows]).nonzero().squeeze(1)
                if len(running) == 0:
                    break
                if len(running) < len(rows):
                    inside = (running.unsqueeze(1) * K + torch.arange(K, device=device)).flatten()
                    memory, state = memory.select(inside), tuple(part[inside] for part in state)
                    rows, places, scores = rows[running], places[running], scores[running]
                    prefixes, previous = prefixes[running], previous[inside]
        return _hypotheses(tokens, log_prob, truncated, specials)

    @staticmethod
    def _keep(
        chosen: Tensor,
        rows: Tensor,
        which: Tensor,
        prefixes: Tensor,
        parent: Tensor,
        scores: Tensor,
        into: tuple[Tensor, Tensor],
    ) -> None:
        """Write the prefix of candidate ``which`` [B'] and its log p into the results, where ``chosen`` [B']."""
        tokens, log_prob = into
        which = which.unsqueeze(1)
        source = parent.gather(1, which).unsqueeze(-1).expand(-1, 1, prefixes.size(-1))
        prefix = prefixes.gather(1, source).squeeze(1)
        tokens[rows] = torch.where(chosen.unsqueeze(1), prefix, tokens[rows])
        log_prob[rows] = torch.where(chosen, scores.gather(1, which).squeeze(1), log_prob[rows])


def _next(model: Seq2Seq, previous: Tensor, state: State, memory: Memory, specials: Specials) -> tuple[Tensor, State]:
    """log p [B, V] of the next token, -inf for those that never are one, and the state behind ``previous`` [B]."""
    logits, decoded = model.step(previous, state, memory)
    scores = torch.log_softmax(logits.float(), dim=-1)
    scores[:, specials.pad] = -torch.inf
    scores[:, specials.bos] = -torch.inf
    return scores, decoded.state


def _hypotheses(tokens: Tensor, log_prob: Tensor, truncated: Tensor, specials: Specials) -> Hypotheses:
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
