"""Beam decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnspan.errors import SettingError, check_counts, check_numbers
from attnspan.models.decoders.base import DecoderOutput
from attnspan.models.decoding.constraints import constrain
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.models.decoding.length_penalty import LengthPenalty
from attnspan.models.decoding.n_best import NBest
from attnspan.models.decoding.strategy import DecodingStrategy, Hypotheses, Task
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import State
from attnspan.models.seq2seq import Seq2Seq

_LEAST_COVERAGE = 1e-6
"""A position with less attention counts as having so much: the logarithm of 0 would refuse every hypothesis."""


class Beam(DecodingStrategy):
    """Keep the ``beam_size`` likeliest prefixes at every step (Graves 2012, section 2.5; Bahdanau et al. 2015, 4.2).

    A prefix that ends frees no slot: the beam shrinks, so a beam of one is greedy decoding. Ended hypotheses are
    ordered by their score (Wu et al. 2016, equation 14)::

        s(y, x) = log p(y | x) / lp(n) + beta * sum_i log(min(sum_t alpha_ti, 1))

    where n counts the tokens of y and <eos>, i the source positions, and t the n steps, that of <eos> too. A hypothesis
    that was cut at the limit comes after all that ended. An example is finished when no slot is left, or when no
    running prefix can come among its best. Many toolkits stop at the first ended hypothesis instead.

    Args:
        beam_size: slots in the beam.
        length_penalty: lp.
        coverage_penalty: beta; 0 for none.
    """

    def __init__(
        self,
        *,
        limit: LengthLimit,
        beam_size: int,
        length_penalty: LengthPenalty,
        coverage_penalty: float = 0.0,
        min_length: int = 0,
        no_repeat_ngram: int | None = None,
    ) -> None:
        super().__init__(limit=limit, min_length=min_length, no_repeat_ngram=no_repeat_ngram)
        check_counts(beam_size=beam_size)
        check_numbers(coverage_penalty=coverage_penalty)
        if not isinstance(length_penalty, LengthPenalty):
            raise SettingError("length_penalty", f"must be a length penalty, not {length_penalty!r}")
        self.beam_size = beam_size
        self.length_penalty = length_penalty
        self.coverage_penalty = coverage_penalty

    @property
    def needs_attention(self) -> str:
        """The coverage penalty."""
        return "coverage_penalty" if self.coverage_penalty else ""

    def decode(self, model: Seq2Seq, memory: Memory, task: Task) -> Hypotheses:
        """Decode with the slots of all examples at once.

        Raises:
            SettingError: there are more hypotheses to find than slots.
        """
        K, B, n, specials = self.beam_size, len(task.limits), task.n_best, task.specials
        if n > K:
            raise SettingError("n_best", f"a beam of {K} finds at most {K} hypotheses, not {n}; use a larger beam")
        device, longest = memory.states.device, int(task.limits.max())
        limits = task.limits.to(device, non_blocking=True)
        ended, cut = (NBest.empty(B, n, longest + 1, pad=specials.pad, device=device) for _ in range(2))
        not_finite = torch.zeros(B, dtype=torch.bool, device=device)
        beam = _Slots.start(model, memory, task, K, with_coverage=self.coverage_penalty > 0)
        for t in range(longest + 1):
            rows = beam.rows
            log_probs, decoded = self.next_log_probs(model, beam.previous, beam.state, beam.memory, specials)
            if task.constraints:
                prefixes, examples = beam.prefixes.flatten(0, 1)[:, :t], rows.repeat_interleave(K)
                constrain(log_probs, task.constraints, prefixes, examples, eos=specials.eos)
            V = log_probs.size(-1)
            top, index = (beam.scores.unsqueeze(-1) + log_probs.view(-1, K, V)).flatten(1).topk(K, dim=1)
            not_finite[rows] |= top.isnan().any(dim=1)
            parent, token = index // V, index % V
            top = top.masked_fill(torch.arange(K, device=device) >= beam.free.unsqueeze(1), -torch.inf)
            is_end, is_full = token == specials.eos, (limits[rows] <= t).unsqueeze(1)

            is_cut = _is_parent(parent, is_full & ~is_end & (top > -torch.inf))
            cut_log_prob = beam.scores.masked_fill(~is_cut, -torch.inf)
            cut.add(rows, score=cut_log_prob, log_prob=cut_log_prob, tokens=beam.prefixes)
            beam.move(parent, decoded)
            score = top / self.length_penalty(torch.tensor(t + 1)) + self._coverage_score(beam)
            ended.add(rows, score=score.masked_fill(~is_end, -torch.inf), log_prob=top, tokens=beam.prefixes)
            beam.append(token, t, top.masked_fill(is_end | is_full, -torch.inf))
            beam.free = beam.free - (is_end & (top > -torch.inf)).sum(dim=1)
            if t % self.CHECK_EVERY == self.CHECK_EVERY - 1:
                # log p and the coverage penalty are at most 0, so this bounds the final score of a running prefix.
                bound = beam.scores.max(dim=1).values / self.length_penalty(limits[rows] + 1)
                running = (bound > ended.score[rows, -1]).nonzero().squeeze(1)
                if len(running) == 0:
                    break
                if len(running) < len(rows):
                    beam.select(running)
        found, truncated = ended.followed_by(cut)
        log_prob = found.log_prob.masked_fill(not_finite.unsqueeze(1), torch.nan)
        return self.make_hypotheses(found.tokens.flatten(0, 1), log_prob.flatten(), truncated.flatten(), specials)

    def _coverage_score(self, beam: _Slots) -> Float[Tensor, "R K"] | float:
        """The coverage penalty of the hypotheses in the slots (Wu et al. 2016, equation 14)."""
        if not self.coverage_penalty:
            return 0.0
        is_padding = ~beam.memory.mask[:: len(beam.memory.mask) // len(beam.rows)].unsqueeze(1)
        logs = beam.coverage.clamp(min=_LEAST_COVERAGE, max=1.0).log().masked_fill(is_padding, 0.0)
        return self.coverage_penalty * logs.sum(dim=-1)


@dataclass(kw_only=True)
class _Slots:
    """The beams of the R examples that are still running, K slots each; row r K + k is slot k of the r-th of them."""

    rows: Int[Tensor, " R"]
    """Positions of the examples in the batch."""
    memory: Memory
    """Of R rows, if the decoder's state may share them, or else of R K rows."""
    state: State
    """Of R K rows, before ``previous``."""
    previous: Int[Tensor, " RK"]
    prefixes: Int[Tensor, "R K T"]
    scores: Float[Tensor, "R K"]
    """log p of the prefixes; -inf in an empty slot."""
    coverage: Float[Tensor, "R K S"]
    """Sum of the attention weights so far; without positions if nobody needs it."""
    free: Int[Tensor, " R"]
    """Slots in which nothing has ended yet."""

    @classmethod
    def start(cls, model: Seq2Seq, memory: Memory, task: Task, K: int, *, with_coverage: bool) -> Self:
        """All examples, each with an empty prefix in its first slot."""
        B, device, longest = len(task.limits), memory.states.device, int(task.limits.max())
        rows = torch.arange(B, device=device)
        of_each = rows.repeat_interleave(K)
        state = tuple(part[of_each] for part in model.decoder.start(memory))
        scores = torch.full((B, K), -torch.inf, device=device)
        scores[:, 0] = 0.0
        return cls(
            rows=rows,
            memory=memory if model.decoder.shares_memory else memory.select(of_each),
            state=state,
            previous=torch.full((B * K,), task.specials.bos, dtype=torch.long, device=device),
            prefixes=torch.full((B, K, longest + 1), task.specials.pad, dtype=torch.long, device=device),
            scores=scores,
            coverage=torch.zeros(B, K, memory.mask.size(1) if with_coverage else 0, device=device),
            free=torch.full((B,), K, device=device),
        )

    def move(self, parent: Int[Tensor, "R K"], decoded: DecoderOutput) -> None:
        """Put into each slot what was in its ``parent``, after the decoder's step."""
        if self.coverage.size(-1):
            assert decoded.weights is not None
            self.coverage = self.coverage + decoded.weights.float().view_as(self.coverage)
        self.coverage, self.prefixes = (
            part.gather(1, parent.unsqueeze(-1).expand_as(part)) for part in (self.coverage, self.prefixes)
        )
        first = torch.arange(len(parent), device=parent.device).unsqueeze(1) * parent.size(1)
        self.state = tuple(part[(first + parent).flatten()] for part in decoded.state)

    def append(self, token: Int[Tensor, "R K"], t: int, scores: Float[Tensor, "R K"]) -> None:
        """Append the t-th tokens; ``scores`` are those of the longer prefixes."""
        self.prefixes[:, :, t], self.previous, self.scores = token, token.flatten(), scores

    def select(self, running: Int[Tensor, " N"]) -> None:
        """Keep the examples ``running`` only, numbered from 0 to R - 1."""
        K = self.scores.size(1)
        kept = (running.unsqueeze(1) * K + torch.arange(K, device=running.device)).flatten()
        self.memory = self.memory.select(running if len(self.memory.mask) == len(self.rows) else kept)
        self.state = tuple(part[kept] for part in self.state)
        self.previous = self.previous[kept]
        self.rows, self.prefixes, self.scores = self.rows[running], self.prefixes[running], self.scores[running]
        self.coverage, self.free = self.coverage[running], self.free[running]


def _is_parent(parent: Int[Tensor, "R K"], is_child: Bool[Tensor, "R K"]) -> Bool[Tensor, "R K"]:
    """Which slots are the parent of a marked child."""
    number = torch.arange(parent.size(1), device=parent.device)
    return ((parent.unsqueeze(2) == number) & is_child.unsqueeze(2)).any(dim=1)
