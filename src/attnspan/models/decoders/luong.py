"""Luong's wiring: the new state asks, and the answer joins it before the readout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnspan.kernels.luong import FusedLuong
from attnspan.models.attention.attention import Attention
from attnspan.models.attention.scores import BuildScore, DotScore, GeneralScore, ScaledDotScore
from attnspan.models.attention.windows import BuildWindow, GlobalWindow
from attnspan.models.bridge import Bridge, BuildBridge
from attnspan.models.decoders.base import Decoded, RecurrentDecoder
from attnspan.models.decoders.fused import is_covered, unroll_fused
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence, State


class LuongDecoder(RecurrentDecoder):
    """Luong et al. 2015, section 3.

    h_t = RNN(y_{t-1}, h_{t-1});  c_t = attend(query = h_t);  h~_t = tanh(W_c [c_t; h_t])  (eq. 5)

    With input feeding (section 3.3) the cell reads [y_{t-1}; h~_{t-1}], with h~_0 = 0. h_t is the top layer's. The
    state is the cells', h~_t and the attention's.

    Args:
        embedding_size: E.
        hidden_size: H.
        memory_size: M.
        final_size: F, features of the encoder's last word.
        rnn: builds the cells.
        score: how h_t is compared with the memory.
        window: where it may look.
        input_feeding: h~_{t-1} enters the cell, and each step waits for the one before.
        bridge: builds the way from the last word to the first state.
        fused: unroll input feeding of one layer, with a score that is a product, by :mod:`attnspan.kernels.luong`,
            the same numbers sooner. Whatever else unrolls without it.
    """

    def __init__(
        self,
        *,
        embedding_size: int,
        hidden_size: int,
        memory_size: int,
        final_size: int,
        rnn: BuildRecurrence,
        score: BuildScore,
        window: BuildWindow = GlobalWindow,
        input_feeding: bool = False,
        bridge: BuildBridge = Bridge,
        fused: bool = False,
    ) -> None:
        fed_size = hidden_size if input_feeding else 0
        super().__init__(
            input_size=embedding_size + fed_size, hidden_size=hidden_size, final_size=final_size, rnn=rnn, bridge=bridge
        )
        self.attention = Attention(score=score, window=window, query_size=hidden_size, memory_size=memory_size)
        self.combine = nn.Linear(memory_size + hidden_size, hidden_size, bias=False)  # W_c
        self.input_feeding = input_feeding
        products = (DotScore, ScaledDotScore, GeneralScore)
        self.fused = fused and input_feeding and is_covered(self.attention, self.rnn, *products)

    def prepare(self, memory: Memory) -> Memory:
        """Compute the keys."""
        return self.attention.prepare(memory)

    def start(self, memory: Memory) -> State:
        """h_0 from the bridge, and h~_0 = 0."""
        cells = super().start(memory)
        return *cells, torch.zeros_like(cells[0][:, -1]), *self.attention.start(memory)

    def step(self, embedded: Tensor, state: State, memory: Memory) -> Decoded:
        """Read one token, or, where no step waits for the one before, any number of them."""
        parts = self.rnn.parts
        if self.input_feeding:
            embedded = torch.cat([embedded, state[parts].unsqueeze(1)], dim=-1)
        hidden, cells = self.rnn(embedded, state[:parts])
        context, weights, attending = self.attention(hidden, memory, state[parts + 1 :])
        output = torch.tanh(self.combine(torch.cat([context, hidden], dim=-1)))
        return Decoded(output=output, state=(*cells, output[:, -1], *attending), weights=weights)

    def unroll(self, embedded: Tensor, memory: Memory) -> Decoded:
        """Run the cells and attend from all positions at once, where none waits; fused where that is chosen."""
        if self.fused:
            return self._unroll_fused(embedded, memory)
        if self.input_feeding or self.attention.score.remembers:
            return super().unroll(embedded, memory)
        return self.step(embedded, self.start(memory), memory)

    def _unroll_fused(self, embedded: Tensor, memory: Memory) -> Decoded:
        *first, _, taken = self.start(memory)
        own = self.combine.weight
        output, weights, *last = unroll_fused(FusedLuong, self.rnn, embedded, memory, own, start=(*first,))
        state = (*(part.unsqueeze(1) for part in last), output[:, -1], taken + embedded.size(1))
        return Decoded(output=output, state=state, weights=weights)
