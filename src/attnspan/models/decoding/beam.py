"""Beam decoding."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from attnspan.errors import check_counts, check_numbers
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.models.decoding.strategy import DecodingStrategy, Hypotheses, Specials
from attnspan.models.memory import Memory
from attnspan.models.seq2seq import Seq2Seq


class Beam(DecodingStrategy):
    """Keep the ``beam_size`` likeliest prefixes at every step (Graves 2012, section 2.5; Bahdanau et al. 2015, 4.2).

    A prefix that ends frees no slot: the beam shrinks, so a beam of one is greedy decoding. The best of the ended
    hypotheses has the highest log p / n^a, where n counts its tokens and <eos>, and a is ``length_normalisation``. An
    example is finished when no slot is left, or when no running prefix can beat its best. Many toolkits stop at the
    first ended hypothesis instead, or normalise otherwise.

    Args:
        beam_size: slots in the beam.
        length_normalisation: a; 0 compares log p as it is.
    """

    def __init__(self, *, limit: LengthLimit, beam_size: int, length_normalisation: float) -> None:
        super().__init__(limit=limit)
        check_counts(beam_size=beam_size)
        check_numbers(length_normalisation=length_normalisation)
        self.beam_size = beam_size
        self.length_normalisation = length_normalisation

    def decode(self, model: Seq2Seq, memory: Memory, limits: Int[Tensor, " B"], specials: Specials) -> Hypotheses:
        """Decode with K = ``beam_size`` rows an example: row b K + k is slot k of example b."""
        K, B, device, longest = self.beam_size, len(limits), memory.states.device, int(limits.max())
        limits = limits.to(device, non_blocking=True)
        best = torch.full((B,), -torch.inf, device=device)  # normalised
        log_prob = torch.zeros(B, device=device)
        tokens = torch.full((B, longest + 1), specials.pad, dtype=torch.long, device=device)
        truncated = torch.zeros(B, dtype=torch.bool, device=device)

        rows = torch.arange(B, device=device)  # examples that are still running
        memory = memory.select(rows.repeat_interleave(K))
        state = model.decoder.start(memory)
        previous = torch.full((B * K,), specials.bos, dtype=torch.long, device=device)
        prefixes = torch.full((B, K, longest + 1), specials.pad, dtype=torch.long, device=device)
        scores = torch.full((B, K), -torch.inf, device=device)  # log p of the prefixes; -inf in an empty slot
        scores[:, 0] = 0.0
        slots = torch.full((B,), K, device=device)
        for t in range(longest + 1):
            log_probs, state = self.next_log_probs(model, previous, state, memory, specials)
            V = log_probs.size(-1)
            top, index = (scores.unsqueeze(-1) + log_probs.view(-1, K, V)).flatten(1).topk(K, dim=1)
            parent, token = index // V, index % V
            top = top.masked_fill(torch.arange(K, device=device) >= slots.unsqueeze(1), -torch.inf)
            before, prefixes = scores.gather(1, parent), prefixes.gather(1, parent.unsqueeze(-1).expand_as(prefixes))
            at = torch.arange(len(rows), device=device)
            ended, full = token == specials.eos, (limits[rows] <= t).unsqueeze(1)

            # The best that ends here, if it beats what ended before.
            value, which = (top / (t + 1) ** self.length_normalisation).masked_fill(~ended, -torch.inf).max(dim=1)
            is_better = value > best[rows]
            tokens[rows] = torch.where(is_better.unsqueeze(1), prefixes[at, which], tokens[rows])
            log_prob[rows] = torch.where(is_better, top[at, which], log_prob[rows])
            best[rows] = torch.where(is_better, value, best[rows])
            # The best that is cut here, only where nothing has ended: the prefix without its next token.
            value, which = before.masked_fill(ended | ~full | (top == -torch.inf), -torch.inf).max(dim=1)
            is_cut = (value > -torch.inf) & (best[rows] == -torch.inf)
            tokens[rows] = torch.where(is_cut.unsqueeze(1), prefixes[at, which], tokens[rows])
            log_prob[rows] = torch.where(is_cut, before[at, which], log_prob[rows])
            truncated[rows] |= is_cut

            slots = slots - (ended & (top > -torch.inf)).sum(dim=1)
            scores = top.masked_fill(ended | full, -torch.inf)
            prefixes[:, :, t] = token
            previous = token.flatten()
            origin = (at.unsqueeze(1) * K + parent).flatten()
            state = tuple(part[origin] for part in state)
            if t % self.CHECK_EVERY == self.CHECK_EVERY - 1:
                # log p only falls, so this bounds the final score of a running prefix.
                bound = scores.max(dim=1).values / (limits[rows] + 1) ** self.length_normalisation
                running = (bound > best[rows]).nonzero().squeeze(1)
                if len(running) == 0:
                    break
                if len(running) < len(rows):
                    kept = (running.unsqueeze(1) * K + torch.arange(K, device=device)).flatten()
                    memory, state = memory.select(kept), tuple(part[kept] for part in state)
                    rows, slots, scores = rows[running], slots[running], scores[running]
                    prefixes, previous = prefixes[running], previous[kept]
        return self.make_hypotheses(tokens, log_prob, truncated, specials)
