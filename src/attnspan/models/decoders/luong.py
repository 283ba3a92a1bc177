"""Luong's wiring: the new decoder state is the query, and the context joins it before the readout."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnspan.errors import check_switches
from attnspan.kernels.luong import FusedLuong
from attnspan.models.attention.normalisers import BuildNormaliser, Softmax
from attnspan.models.attention.scores import BuildScore, DotScore, GeneralScore, ScaledDotScore
from attnspan.models.attention.windows import BuildWindow, GlobalWindow
from attnspan.models.bridge import Bridge, BuildBridge
from attnspan.models.decoders.base import DecoderOutput, Sizes
from attnspan.models.decoders.pointer_generator import BuildPointer
from attnspan.models.decoders.with_attention import AttentionDecoder
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence, State


class LuongDecoder(AttentionDecoder):
    """Luong et al. 2015, section 3.

    h_t = RNN(y_{t-1}, h_{t-1});  c_t = attend(query = h_t);  h~_t = tanh(W_c [c_t; h_t])  (eq. 5)

    With input feeding (section 3.3) the cell reads [y_{t-1}; h~_{t-1}], with h~_0 = 0. h_t is the top layer's. The
    state is that of the cells, with input feeding h~_t, and that of the attention.

    Args, besides those of :class:`~attnspan.models.decoders.with_attention.AttentionDecoder`:
        input_feeding: h~_{t-1} enters the cell, and each step waits for the one before. The kernel needs it.
    """

    kernel = FusedLuong
    kernel_scores = (DotScore, ScaledDotScore, GeneralScore)

    def __init__(
        self,
        *,
        sizes: Sizes,
        rnn: BuildRecurrence,
        score: BuildScore,
        window: BuildWindow = GlobalWindow,
        normaliser: BuildNormaliser = Softmax,
        heads: int = 1,
        input_feeding: bool = False,
        bridge: BuildBridge = Bridge,
        pointer: BuildPointer | None = None,
        fused: bool = False,
    ) -> None:
        check_switches(input_feeding=input_feeding)
        input_size = sizes.embedding + (sizes.hidden if input_feeding else 0)
        super().__init__(
            sizes=sizes,
            rnn=rnn,
            input_size=input_size,
            score=score,
            window=window,
            normaliser=normaliser,
            heads=heads,
            bridge=bridge,
            pointer=pointer,
            fused=fused,
        )
        self.combine = nn.Linear(sizes.memory + sizes.hidden, sizes.hidden, bias=False)  # W_c
        self.input_feeding = input_feeding
        self.fused = self.fused and input_feeding and not self.copies  # the kernel does not return h_t

    def start(self, memory: Memory) -> State:
        """h_0 from the bridge, h~_0 = 0, and the attention's state."""
        state, parts = super().start(memory), self.rnn.parts
        fed = (torch.zeros_like(state[0][:, -1]),) if self.input_feeding else ()
        return *state[:parts], *fed, *state[parts:]

    def step(self, embedded: Float[Tensor, "B T E"], state: State, memory: Memory) -> DecoderOutput:
        """Read one token, or, where no step waits for the one before, any number of them."""
        parts = self.rnn.parts
        read = (embedded, state[parts].unsqueeze(1)) if self.input_feeding else (embedded,)
        hidden, cells = self.rnn.step(read, state[:parts])
        context, weights, choices, attention_state = self.attention(hidden, memory, state[parts + self.input_feeding :])
        output = torch.tanh(self.combine(torch.cat([context, hidden], dim=-1)))
        fed = (output[:, -1],) if self.input_feeding else ()
        return DecoderOutput.of_heads(
            output=output,
            state=(*cells, *fed, *attention_state),
            weights=weights,
            choices=choices,
            generation_logit=self.generation_logit(context, hidden, embedded),
        )

    def unroll(self, embedded: Float[Tensor, "B T E"], memory: Memory) -> DecoderOutput:
        """Unroll along a known target: by the kernel if ``fused``, in parallel where no step waits for another."""
        if self.input_feeding or self.attention.remembers:
            return super().unroll(embedded, memory)
        return self.step(embedded, self.start(memory), memory)

    def _unroll_fused(self, embedded: Tensor, memory: Memory) -> DecoderOutput:
        *initial, _, steps_taken = self.start(memory)
        output, weights, *final = self._call_kernel(embedded, memory, self.combine.weight, initial=(*initial,))
        state = (*(part.unsqueeze(1) for part in final), output[:, -1], steps_taken + embedded.size(1))
        return DecoderOutput(output=output, state=state, weights=weights)
