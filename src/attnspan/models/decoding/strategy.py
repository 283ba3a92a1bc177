"""The interface of a decoding strategy: from a memory to hypotheses. Each strategy is written once for all decoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnspan.errors import NotFiniteError, SettingError, check_counts
from attnspan.models.decoders.base import DecoderOutput
from attnspan.models.decoding.constraints import Constraint, GivenLength, GivenTokens, MinimumLength, NoRepeatedNgram
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.models.encoders.base import SizesTensor, SourceTensor
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import State
from attnspan.models.seq2seq import Seq2Seq
from attnspan.models.source_size import source_lengths


@dataclass(frozen=True, kw_only=True)
class Specials:
    """Ids of the special tokens: padding, begin and end of a sequence."""

    pad: int
    bos: int
    eos: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be decoded: B sources, n hypotheses of each."""

    source: SourceTensor
    """Token ids or pixels, padded."""
    sizes: SizesTensor
    """Of the sources, on the CPU."""
    limits: Int[Tensor, " B"]
    """The most tokens of a hypothesis, <eos> not counted; on the CPU."""
    constraints: Sequence[Constraint]
    """What the tokens of a hypothesis must keep."""
    n_best: int
    """n."""
    specials: Specials


@dataclass(frozen=True, kw_only=True)
class Hypotheses:
    """What decoding found for B sources: row b n + k is hypothesis k of source b, the best first.

    Here N = B n.
    """

    tokens: Int[Tensor, "N T"]
    """Without <eos>, padded."""
    lengths: Int[Tensor, " N"]
    """Number of tokens."""
    log_prob: Float[Tensor, " N"]
    """log p(tokens, <eos> | source, given tokens) in nats; without that of <eos> where truncated.

    -inf where there are fewer than n.
    """
    truncated: Bool[Tensor, " N"]
    """The limit was reached before <eos>."""
    weights: Float[Tensor, "N T S"] | None = None
    """0 in padding. None where the wiring has none, or where they were not requested."""


class DecodingStrategy(ABC):
    """Finds hypotheses for each of B sources, the same whatever else is in the batch.

    Args:
        limit: the most tokens of a hypothesis; raised to ``min_length`` where it is lower.
        min_length: the fewest tokens of a hypothesis.
        no_repeat_ngram: n, if no sequence of n tokens may occur twice in a hypothesis.
    """

    CHECK_EVERY = 8
    """Steps between two checks of which examples are finished: each makes a GPU wait, and lets the batch shrink."""

    def __init__(self, *, limit: LengthLimit, min_length: int = 0, no_repeat_ngram: int | None = None) -> None:
        if not isinstance(limit, LengthLimit):
            raise SettingError("limit", f"must be a length limit, not {limit!r}")
        if isinstance(min_length, bool) or not isinstance(min_length, int) or min_length < 0:
            raise SettingError("min_length", f"must be a whole number of at least 0, not {min_length!r}")
        if no_repeat_ngram is not None:
            check_counts(no_repeat_ngram=no_repeat_ngram)
        self.limit = limit
        self.min_length = min_length
        self.no_repeat_ngram = no_repeat_ngram

    @property
    def needs_attention(self) -> str:
        """The setting for which the model must have attention weights; empty if there is none."""
        return ""

    @torch.no_grad()
    def __call__(
        self,
        model: Seq2Seq,
        source: SourceTensor,
        lengths: SizesTensor,
        *,
        specials: Specials,
        with_weights: bool = False,
        n_best: int = 1,
        given_lengths: Int[Tensor, " B"] | None = None,
        given_tokens: Int[Tensor, "B T"] | None = None,
    ) -> Hypotheses:
        """Decode sources. The caller sets the model's mode (train, eval).

        Args:
            model: decodes.
            source: token ids or pixels, padded.
            lengths: of the sources, in tokens, or of images height and width; on the CPU.
            specials: ids of the special tokens.
            with_weights: also return the attention weights.
            n_best: hypotheses of each source.
            given_lengths: exact lengths of the hypotheses, <eos> not counted, on the CPU; None for as the model ends
                them. They replace limit and minimum length.
            given_tokens: ids that the hypotheses have at their places, <pad> where the model chooses; None for none.

        Raises:
            SettingError: the strategy cannot find ``n_best`` hypotheses.
            NotFiniteError: the model gives no finite scores.
        """
        check_counts(n_best=n_best)
        constraints: list[Constraint] = []
        if given_lengths is not None:
            limits = given_lengths
            constraints.append(GivenLength(given_lengths.to(source.device, non_blocking=True)))
        else:
            limits = self.limit(source_lengths(lengths)).clamp(min=self.min_length)
            if self.min_length:
                constraints.append(MinimumLength(self.min_length))
        if self.no_repeat_ngram is not None:
            constraints.append(NoRepeatedNgram(self.no_repeat_ngram))
        if given_tokens is not None:  # last: nothing forbids a given token
            constraints.append(GivenTokens(given_tokens.to(source.device, non_blocking=True), pad=specials.pad))
        memory = model.encode(source, lengths)
        task = Task(
            source=source, sizes=lengths, limits=limits, constraints=constraints, n_best=n_best, specials=specials
        )
        hypotheses = self.decode(model, memory, task)
        if bool(hypotheses.log_prob.isnan().any()):
            raise NotFiniteError("the model gives no finite scores: its weights are not finite, or they overflow")
        weights = _weights(model, memory, hypotheses, task) if with_weights else None
        return replace(hypotheses, weights=weights)

    @abstractmethod
    def decode(self, model: Seq2Seq, memory: Memory, task: Task) -> Hypotheses:
        """Decode from a prepared memory, without weights. A score of the model that is NaN makes a log p NaN."""

    @staticmethod
    def next_log_probs(
        model: Seq2Seq, previous: Int[Tensor, " N"], state: State, memory: Memory, specials: Specials
    ) -> tuple[Float[Tensor, "N V"], DecoderOutput]:
        """log p of the token after ``previous``, -inf for <pad> and <bos>, and the decoder's step."""
        logits, decoded = model.step(previous, state, memory)
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        log_probs[:, specials.pad] = -torch.inf
        log_probs[:, specials.bos] = -torch.inf
        return log_probs, decoded

    @staticmethod
    def make_hypotheses(
        tokens: Int[Tensor, "N T"], log_prob: Float[Tensor, " N"], truncated: Bool[Tensor, " N"], specials: Specials
    ) -> Hypotheses:
        """Cut tokens, padded after their <eos> or end, to the longest hypothesis."""
        is_token = (tokens != specials.pad) & (tokens != specials.eos)
        lengths = is_token.sum(dim=1)
        tokens = tokens.masked_fill(~is_token, specials.pad)[:, : int(lengths.max())]
        return Hypotheses(tokens=tokens, lengths=lengths, log_prob=log_prob, truncated=truncated)


def _weights(model: Seq2Seq, memory: Memory, hypotheses: Hypotheses, task: Task) -> Tensor | None:
    """The attention weights of the hypotheses: the decoder reads them once more."""
    N, T = hypotheses.tokens.shape
    if task.n_best > 1:
        memory = memory.select(torch.arange(N, device=memory.states.device) // task.n_best)
    begin = torch.full((N, 1), task.specials.bos, device=memory.states.device)
    target_input = torch.cat([begin, hypotheses.tokens], dim=1)[:, : max(T, 1)]  # one step tells whether there are any
    weights = model.unroll(target_input, memory)[1].weights
    if weights is None:
        return None
    return weights[:, :T].masked_fill((hypotheses.tokens == task.specials.pad).unsqueeze(-1), 0.0)
