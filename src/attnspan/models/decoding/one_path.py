"""What greedy decoding and sampling share: a token is chosen at every step and never taken back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnspan.models.decoding.constraints import constrain
from attnspan.models.decoding.strategy import DecodingStrategy, Hypotheses, Task
from attnspan.models.memory import Memory
from attnspan.models.seq2seq import Seq2Seq

Choose = Callable[[Float[Tensor, "N V"], Int[Tensor, " N"], int], Int[Tensor, " N"]]
"""From log p of the next tokens of the paths, the numbers of the paths, and the step: the next tokens."""


class OnePath(DecodingStrategy):
    """Follows each path until <eos> or the limit."""

    @abstractmethod
    def chooser(self, task: Task) -> Choose:
        """What chooses the tokens of path b n + k, the k-th of source b."""

    def decode(self, model: Seq2Seq, memory: Memory, task: Task) -> Hypotheses:
        """Take the chosen token at every step."""
        n, device, longest = task.n_best, memory.states.device, int(task.limits.max())
        examples = torch.arange(len(task.limits), device=device).repeat_interleave(n)
        limits = task.limits.to(device, non_blocking=True)[examples]
        N, choose = len(limits), self.chooser(task)
        # One step more than the longest limit: there <eos> may still come, and anything else is a truncation.
        tokens = torch.full((N, longest + 1), task.specials.pad, dtype=torch.long, device=device)
        log_prob = torch.zeros(N, device=device)
        truncated = torch.zeros(N, dtype=torch.bool, device=device)

        rows = torch.arange(N, device=device)  # paths that are still running, the rows of memory and state
        memory = memory.select(examples) if n > 1 else memory
        state = model.decoder.start(memory)
        previous = torch.full((N,), task.specials.bos, dtype=torch.long, device=device)
        finished = torch.zeros(N, dtype=torch.bool, device=device)
        for t in range(longest + 1):
            log_probs, decoded = self.next_log_probs(model, previous, state, memory, task.specials)
            if task.constraints:
                constrain(log_probs, task.constraints, tokens[rows, :t], examples[rows], eos=task.specials.eos)
            state, previous = decoded.state, choose(log_probs, rows, t)
            chosen = log_probs.gather(1, previous.unsqueeze(1)).squeeze(1)
            cut = ~finished & (previous != task.specials.eos) & (limits[rows] <= t)
            truncated[rows] |= cut
            finished = finished | cut
            log_prob[rows] += torch.where(finished, 0.0, chosen)
            tokens[rows, t] = torch.where(finished, task.specials.pad, previous)
            finished = finished | (previous == task.specials.eos)
            if t % self.CHECK_EVERY == self.CHECK_EVERY - 1:
                running = (~finished).nonzero().squeeze(1)
                if len(running) == 0:
                    break
                if len(running) < len(rows):
                    rows, previous, finished = rows[running], previous[running], finished[running]
                    memory, state = memory.select(running), tuple(part[running] for part in state)
        return self.make_hypotheses(tokens, log_prob, truncated, task.specials)
