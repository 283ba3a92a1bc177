"""Luong's wiring: the new decoder state is the query, and the context joins it before the readout."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnspan.errors import check_switches
from attnspan.kernels.luong import FusedLuong
from attnspan.models.attention.attention import Attention
from attnspan.models.attention.scores import BuildScore, DotScore, GeneralScore, ScaledDotScore
from attnspan.models.attention.windows import BuildWindow, GlobalWindow
from attnspan.models.bridge import Bridge, BuildBridge
from attnspan.models.decoders.base import DecoderOutput, RecurrentDecoder
from attnspan.models.decoders.fused import can_fuse, unroll_fused
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence, State


class LuongDecoder(RecurrentDecoder):
    """Luong et al. 2015, section 3.

    h_t = RNN(y_{t-1}, h_{t-1});  c_t = attend(query = h_t);  h~_t = tanh(W_c [c_t; h_t])  (eq. 5)

    With input feeding (section 3.3) the cell reads [y_{t-1}; h~_{t-1}], with h~_0 = 0. h_t is the top layer's. The
    state is that of the cells, h~_t, and that of the attention.

    Args:
        embedding_size: E.
        hidden_size: H.
        memory_size: M.
        final_size: F, features of the encoder's final state.
        rnn: builds the cells.
        score: compares h_t with the memory.
        window: which positions a step may attend to.
        input_feeding: h~_{t-1} enters the cell, and each step waits for the one before.
        bridge: builds the map from the encoder's final state to the initial state.
        fused: unroll by :mod:`attnspan.kernels.luong` where there is input feeding, one layer, a score that is a
            product and no window: the same numbers in less time.
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
        check_switches(input_feeding=input_feeding, fused=fused)
        fed_size = hidden_size if input_feeding else 0
        super().__init__(
            input_size=embedding_size + fed_size, hidden_size=hidden_size, final_size=final_size, rnn=rnn, bridge=bridge
        )
        self.attention = Attention(score=score, window=window, query_size=hidden_size, memory_size=memory_size)
        self.combine = nn.Linear(memory_size + hidden_size, hidden_size, bias=False)  # W_c
        self.input_feeding = input_feeding
        products = (DotScore, ScaledDotScore, GeneralScore)
        self.fused = fused and input_feeding and can_fuse(self.attention, self.rnn, *products)

    def prepare(self, memory: Memory) -> Memory:
        """Compute the keys."""
        return self.attention.prepare(memory)

    def start(self, memory: Memory) -> State:
        """h_0 from the bridge, h~_0 = 0, and the attention's state."""
        cells = super().start(memory)
        return *cells, torch.zeros_like(cells[0][:, -1]), *self.attention.start(memory)

    def step(self, embedded: Float[Tensor, "B T E"], state: State, memory: Memory) -> DecoderOutput:
        """Read one token, or, where no step waits for the one before, any number of them."""
        parts = self.rnn.parts
        if self.input_feeding:
            embedded = torch.cat([embedded, state[parts].unsqueeze(1)], dim=-1)
        hidden, cells = self.rnn(embedded, state[:parts])
        context, weights, attention_state = self.attention(hidden, memory, state[parts + 1 :])
        output = torch.tanh(self.combine(torch.cat([context, hidden], dim=-1)))
        return DecoderOutput(output=output, state=(*cells, output[:, -1], *attention_state), weights=weights)

    def unroll(self, embedded: Float[Tensor, "B T E"], memory: Memory) -> DecoderOutput:
        """Unroll along a known target: by the kernel if ``fused``, in parallel where no step waits for another."""
        if self.fused:
            return self._unroll_fused(embedded, memory)
        if self.input_feeding or self.attention.score.remembers:
            return super().unroll(embedded, memory)
        return self.step(embedded, self.start(memory), memory)

    def _unroll_fused(self, embedded: Tensor, memory: Memory) -> DecoderOutput:
        *initial, _, steps_taken = self.start(memory)
        own = self.combine.weight
        output, weights, *final = unroll_fused(FusedLuong, self.rnn, embedded, memory, own, initial=(*initial,))
        state = (*(part.unsqueeze(1) for part in final), output[:, -1], steps_taken + embedded.size(1))
        return DecoderOutput(output=output, state=state, weights=weights)
