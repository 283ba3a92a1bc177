"""Beam decoding."""

from __future__ import annotations

import torch
from torch import Tensor

from attnspan.models.decoding.strategy import (
    DecodingStrategy,
    Hypotheses,
    LengthLimit,
    Specials,
    make_hypotheses,
    next_log_probs,
)
from attnspan.models.memory import Memory
from attnspan.models.seq2seq import Seq2Seq


class Beam(DecodingStrategy):
    """Keep the ``beam_size`` likeliest prefixes at every step (Graves 2012, section 2.5; Bahdanau et al. 2015, 4.2).

    A prefix that ends gives up its place in the beam, so a beam of one is greedy decoding. Among the ended ones the
    best
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
            raise ValueError(f"decoding.beam_size={beam_size} must be at least 1")
        if length_normalisation < 0:
            raise ValueError(f"decoding.length_normalisation={length_normalisation} must not be negative")
        self.beam_size = beam_size
        self.length_normalisation = length_normalisation

    def decode(self, model: Seq2Seq, memory: Memory, limits: Tensor, specials: Specials) -> Hypotheses:
        """DecodingStrategy with K = ``beam_size`` rows an example: row b K + k is place k of example b."""
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
            step, state = next_log_probs(model, previous, state, memory, specials)
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
        return make_hypotheses(tokens, log_prob, truncated, specials)

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
