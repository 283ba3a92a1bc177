"""Decoders: the wiring between memory and output. Everything else is the same in every arm.

A decoder implements one :meth:`Decoder.step`. Unrolling along a known target stands once, in :meth:`Decoder.unroll`;
searching stands in :mod:`attnspan.models.search`. A decoder whose steps do not wait for one another may override
``unroll`` with a parallel path; a test holds it equal to the unrolled steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.models.attention import AdditiveScore, Attention, BuildScore
from attnspan.models.fused import FusedBahdanau
from attnspan.models.memory import Memory

State = tuple[Tensor, ...]
"""What a decoder carries from step to step: tensors whose first dimension is the batch."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One step, or all steps, of a decoder.

    Attributes:
        output: [B, T, H] what the readout turns into logits.
        state: the state after the last step.
        weights: [B, T, S] attention weights, or None where the wiring has none.
    """

    output: Tensor
    state: State
    weights: Tensor | None


class BuildDecoder(Protocol):
    """A decoder class with its own settings filled in (``_partial_: true`` in the config)."""

    def __call__(self, *, embedding_size: int, hidden_size: int, memory_size: int, final_size: int) -> Decoder:
        """Build the decoder for these sizes."""


class Bridge(nn.Module):
    """s_0 = tanh(W_s f), where f is what the encoder says in the end (Bahdanau et al. 2015, A.2.2).

    Args:
        final_size: features of f.
        hidden_size: H.
    """

    def __init__(self, *, final_size: int, hidden_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(final_size, hidden_size)

    def forward(self, final: Tensor) -> Tensor:
        """Map final [B, F] to the initial state [B, H]."""
        return torch.tanh(self.project(final))


class Decoder(nn.Module, ABC):
    """What search and training know of a decoder.

    Args:
        hidden_size: H.
        final_size: features of the encoder's last word.
    """

    def __init__(self, *, hidden_size: int, final_size: int) -> None:
        super().__init__()
        self.bridge = Bridge(final_size=final_size, hidden_size=hidden_size)

    def prepare(self, memory: Memory) -> Memory:
        """Compute what all steps share, once a source."""
        return memory

    def start(self, memory: Memory) -> State:
        """Return the state before the first step."""
        return (self.bridge(memory.final),)

    @abstractmethod
    def step(self, embedded: Tensor, state: State, memory: Memory) -> Decoded:
        """Read one token.

        Args:
            embedded: [B, 1, E] the embedded previous token.
            state: from :meth:`start` or the step before.
            memory: from :meth:`prepare`.
        """

    def unroll(self, embedded: Tensor, memory: Memory) -> Decoded:
        """Read a known target, embedded [B, T, E], step by step from the start (teacher forcing)."""
        state, steps = self.start(memory), []
        for t in range(embedded.size(1)):
            steps.append(self.step(embedded[:, t : t + 1], state, memory))
            state = steps[-1].state
        weights = [step.weights for step in steps if step.weights is not None]
        return Decoded(
            output=torch.cat([step.output for step in steps], dim=1),
            state=state,
            weights=torch.cat(weights, dim=1) if weights else None,
        )


class PlainDecoder(Decoder):
    """s_t = GRU(y_{t-1}, s_{t-1}): the encoder speaks once, through the initial state (Sutskever et al. 2014).

    Args:
        embedding_size: E.
        hidden_size: H.
        memory_size: M; not used, the memory's positions are never looked at.
        final_size: features of the encoder's last word.
    """

    def __init__(self, *, embedding_size: int, hidden_size: int, memory_size: int, final_size: int) -> None:
        super().__init__(hidden_size=hidden_size, final_size=final_size)
        self.rnn = nn.GRU(embedding_size, hidden_size, batch_first=True)

    def step(self, embedded: Tensor, state: State, memory: Memory) -> Decoded:
        """Read one token, or, since nothing waits for the output, any number of them."""
        output, last = self.rnn(embedded, state[0].unsqueeze(0))
        return Decoded(output=output, state=(last[0],), weights=None)

    def unroll(self, embedded: Tensor, memory: Memory) -> Decoded:
        """Run the whole target through torch's kernel."""
        return self.step(embedded, self.start(memory), memory)


class PlainEveryStepDecoder(PlainDecoder):
    """s_t = GRU([y_{t-1}; f], s_{t-1}): what the encoder says in the end, f, enters every step (Cho et al. 2014).

    Args:
        embedding_size: E.
        hidden_size: H.
        memory_size: M; not used.
        final_size: features of f.
    """

    def __init__(self, *, embedding_size: int, hidden_size: int, memory_size: int, final_size: int) -> None:
        super().__init__(
            embedding_size=embedding_size + final_size,
            hidden_size=hidden_size,
            memory_size=memory_size,
            final_size=final_size,
        )

    def step(self, embedded: Tensor, state: State, memory: Memory) -> Decoded:
        """Read any number of tokens, each beside f."""
        final = memory.final.unsqueeze(1).expand(-1, embedded.size(1), -1)
        return super().step(torch.cat([embedded, final], dim=-1), state, memory)


class PlainWideDecoder(PlainDecoder):
    """A plain decoder with as many parameters as another one, so that "more parameters" is not the answer.

    The state has W features, and P s_t, of H features, goes to the readout. With F features of the encoder's last word,
    the bridge has (F + 1) W parameters, the GRU 3 W (E + W + 2), and P has W H, so W is the positive root of

        3 W^2 + (3 E + F + H + 7) W = N,

    N being the parameters of the other decoder. All else in the model is the same for both.

    Args:
        embedding_size: E.
        hidden_size: H.
        memory_size: M, for the other decoder.
        final_size: F.
        as_large_as: builds the other decoder.
    """

    def __init__(
        self, *, embedding_size: int, hidden_size: int, memory_size: int, final_size: int, as_large_as: BuildDecoder
    ) -> None:
        with torch.device("meta"):  # sizes without numbers
            other = as_large_as(
                embedding_size=embedding_size, hidden_size=hidden_size, memory_size=memory_size, final_size=final_size
            )
        parameters = sum(parameter.numel() for parameter in other.parameters())
        linear = 3 * embedding_size + final_size + hidden_size + 7
        width = round((math.sqrt(linear**2 + 12 * parameters) - linear) / 6)
        super().__init__(
            embedding_size=embedding_size, hidden_size=width, memory_size=memory_size, final_size=final_size
        )
        self.narrow = nn.Linear(width, hidden_size, bias=False)  # P

    def step(self, embedded: Tensor, state: State, memory: Memory) -> Decoded:
        """Read any number of tokens with the wide state."""
        wide = super().step(embedded, state, memory)
        return replace(wide, output=self.narrow(wide.output))


class LuongDecoder(Decoder):
    """Luong et al. 2015, section 3: the new state asks, and the answer joins it before the readout.

    h_t = GRU(y_{t-1}, h_{t-1});  c_t = attend(query = h_t);  h~_t = tanh(W_c [c_t; h_t])  (eq. 5)

    With input feeding (section 3.3) the cell reads [y_{t-1}; h~_{t-1}], with h~_0 = 0. The state is (h_t, h~_t).

    Args:
        embedding_size: E.
        hidden_size: H.
        memory_size: M.
        final_size: features of the encoder's last word.
        score: how h_t is compared with the memory.
        input_feeding: h~_{t-1} enters the cell, and each step waits for the one before.
    """

    def __init__(
        self,
        *,
        embedding_size: int,
        hidden_size: int,
        memory_size: int,
        final_size: int,
        score: BuildScore,
        input_feeding: bool = False,
    ) -> None:
        super().__init__(hidden_size=hidden_size, final_size=final_size)
        fed_size = hidden_size if input_feeding else 0
        self.rnn = nn.GRU(embedding_size + fed_size, hidden_size, batch_first=True)
        self.attention = Attention(score=score, query_size=hidden_size, memory_size=memory_size)
        self.combine = nn.Linear(memory_size + hidden_size, hidden_size, bias=False)  # W_c
        self.input_feeding = input_feeding

    def prepare(self, memory: Memory) -> Memory:
        """Compute the keys."""
        return self.attention.prepare(memory)

    def start(self, memory: Memory) -> State:
        """h_0 from the bridge, and h~_0 = 0."""
        hidden = self.bridge(memory.final)
        return hidden, torch.zeros_like(hidden)

    def step(self, embedded: Tensor, state: State, memory: Memory) -> Decoded:
        """Read one token, or, where no step waits for an attentional vector, any number of them."""
        if self.input_feeding:
            embedded = torch.cat([embedded, state[1].unsqueeze(1)], dim=-1)
        hidden, last = self.rnn(embedded, state[0].unsqueeze(0))
        context, weights = self.attention(hidden, memory)
        output = torch.tanh(self.combine(torch.cat([context, hidden], dim=-1)))
        return Decoded(output=output, state=(last[0], output[:, -1]), weights=weights)

    def unroll(self, embedded: Tensor, memory: Memory) -> Decoded:
        """Run the recurrence through torch's kernel and attend from all target positions at once, if nothing is fed."""
        if self.input_feeding:
            return super().unroll(embedded, memory)
        return self.step(embedded, self.start(memory), memory)


class BahdanauDecoder(Decoder):
    """Bahdanau et al. 2015, section 3.1: the old state asks, and the answer enters the cell.

    c_t = attend(query = s_{t-1});  s_t = GRU([y_{t-1}; c_t], s_{t-1})

    Args:
        embedding_size: E.
        hidden_size: H.
        memory_size: M.
        final_size: features of the encoder's last word.
        score: how s_{t-1} is compared with the memory.
        fused: unroll with :mod:`attnspan.models.fused`, the same numbers sooner; for the additive score only.

    Raises:
        ValueError: ``fused`` with a score other than the additive one.
    """

    def __init__(
        self,
        *,
        embedding_size: int,
        hidden_size: int,
        memory_size: int,
        final_size: int,
        score: BuildScore,
        fused: bool,
    ) -> None:
        super().__init__(hidden_size=hidden_size, final_size=final_size)
        self.attention = Attention(score=score, query_size=hidden_size, memory_size=memory_size)
        self.cell = nn.GRUCell(embedding_size + memory_size, hidden_size)
        if fused and not isinstance(self.attention.score, AdditiveScore):
            raise ValueError(
                f"decoder.fused=true is for AdditiveScore, but decoder.score is {type(self.attention.score).__name__}; "
                "set decoder.fused=false"
            )
        self.fused = fused

    def prepare(self, memory: Memory) -> Memory:
        """Compute the keys."""
        return self.attention.prepare(memory)

    def step(self, embedded: Tensor, state: State, memory: Memory) -> Decoded:
        """Ask with s_{t-1}, then read the token."""
        context, weights = self.attention(state[0].unsqueeze(1), memory)
        hidden = self.cell(torch.cat([embedded, context], dim=-1).squeeze(1), state[0])
        return Decoded(output=hidden.unsqueeze(1), state=(hidden,), weights=weights)

    def unroll(self, embedded: Tensor, memory: Memory) -> Decoded:
        """Unroll along a known target; fused where that is chosen."""
        score, cell, E = self.attention.score, self.cell, embedded.size(-1)
        if not self.fused:
            return super().unroll(embedded, memory)
        assert isinstance(score, AdditiveScore)
        assert memory.keys is not None
        parts = (
            F.linear(embedded, cell.weight_ih[:, :E], cell.bias_ih),
            *self.start(memory),
            memory.keys,
            memory.states,
        )
        with torch.autocast(embedded.device.type, enabled=False):  # the recurrence stays in the weights' precision
            precise = [part.to(cell.weight_hh.dtype) for part in parts]
            hidden, weights = FusedBahdanau.apply(
                *precise,
                memory.mask,
                score.query.weight,
                score.energy.weight.squeeze(0),
                cell.weight_ih[:, E:],
                cell.weight_hh,
                cell.bias_hh,
            )
        return Decoded(output=hidden, state=(hidden[:, -1],), weights=weights)
