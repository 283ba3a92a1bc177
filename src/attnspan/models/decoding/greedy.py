"""Greedy decoding."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from attnspan.models.decoding.strategy import DecodingStrategy, Hypotheses, Specials
from attnspan.models.memory import Memory
from attnspan.models.seq2seq import Seq2Seq


class Greedy(DecodingStrategy):
    """y_t = argmax p(y | y_1 ... y_{t-1}, x), free-running until <eos> or the limit."""

    def decode(self, model: Seq2Seq, memory: Memory, limits: Int[Tensor, " B"], specials: Specials) -> Hypotheses:
        """Take the most likely token at every step."""
        B, device, longest = len(limits), memory.states.device, int(limits.max())
        limits = limits.to(device, non_blocking=True)
        # One step more than the longest limit: there <eos> may still come, and anything else is a truncation.
        tokens = torch.full((B, longest + 1), specials.pad, dtype=torch.long, device=device)
        log_prob = torch.zeros(B, device=device)
        truncated = torch.zeros(B, dtype=torch.bool, device=device)

        rows = torch.arange(B, device=device)  # examples that are still running, the rows of memory and state
        state = model.decoder.start(memory)
        previous = torch.full((B,), specials.bos, dtype=torch.long, device=device)
        finished = torch.zeros(B, dtype=torch.bool, device=device)
        for t in range(longest + 1):
            log_probs, state = self.next_log_probs(model, previous, state, memory, specials)
            best, previous = log_probs.max(dim=-1)
            cut = ~finished & (previous != specials.eos) & (limits[rows] <= t)
            truncated[rows] |= cut
            finished = finished | cut
            log_prob[rows] += torch.where(finished, 0.0, best)
            tokens[rows, t] = torch.where(finished, specials.pad, previous)
            finished = finished | (previous == specials.eos)
            if t % self.CHECK_EVERY == self.CHECK_EVERY - 1:
                running = (~finished).nonzero().squeeze(1)
                if len(running) == 0:
                    break
                if len(running) < len(rows):
                    rows, previous, finished = rows[running], previous[running], finished[running]
                    memory, state = memory.select(running), tuple(part[running] for part in state)
        return self.make_hypotheses(tokens, log_prob, truncated, specials)
