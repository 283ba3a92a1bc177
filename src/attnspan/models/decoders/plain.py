"""Decoders without attention: they know of the source only the encoder's final state."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnspan.models.bridge import Bridge, BuildBridge
from attnspan.models.decoders.base import BuildDecoder, DecoderOutput, RecurrentDecoder, Sizes
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence, State


class PlainDecoder(RecurrentDecoder):
    """s_t = RNN(y_{t-1}, s_{t-1}): the source enters through the initial state only (Sutskever et al. 2014)."""

    shares_memory = True

    def __init__(self, *, sizes: Sizes, rnn: BuildRecurrence, bridge: BuildBridge = Bridge) -> None:
        super().__init__(sizes=sizes, rnn=rnn, input_size=self.input_size(sizes), bridge=bridge)

    @staticmethod
    def input_size(sizes: Sizes) -> int:
        """Features that enter the cells at each step: those of y_{t-1}."""
        return sizes.embedding

    def step(self, embedded: Float[Tensor, "B T E"], state: State, memory: Memory) -> DecoderOutput:
        """Read one token, or, since no step waits for the output of another, any number of them."""
        output, state = self.rnn(embedded, state)
        return DecoderOutput(output=output, state=state, weights=None)

    def unroll(self, embedded: Float[Tensor, "B T E"], memory: Memory) -> DecoderOutput:
        """Read the whole target at once."""
        return self.step(embedded, self.start(memory), memory)


class PlainEveryStepDecoder(PlainDecoder):
    """s_t = RNN([y_{t-1}; f], s_{t-1}): the encoder's final state f enters every step (Cho et al. 2014)."""

    shares_memory = False

    @staticmethod
    def input_size(sizes: Sizes) -> int:
        """[y_{t-1}; f] has E + F features."""
        return sizes.embedding + sizes.final

    def step(self, embedded: Float[Tensor, "B T E"], state: State, memory: Memory) -> DecoderOutput:
        """Read any number of tokens, each concatenated with f."""
        final = memory.final_state[0].unsqueeze(1).expand(-1, embedded.size(1), -1)
        return super().step(torch.cat([embedded, final], dim=-1), state, memory)


class PlainWideDecoder(PlainDecoder):
    """A plain decoder with as many parameters as another decoder: a control for "it has more parameters".

    Its state has W features, and P s_t, of H features, goes to the readout. W is the width that comes nearest to the
    other decoder's number of parameters, found by counting. All else in the model is the same for both.

    Args:
        sizes: from the model.
        rnn: builds the cells of both.
        as_large_as: builds the other decoder.
    """

    def __init__(self, *, sizes: Sizes, rnn: BuildRecurrence, as_large_as: BuildDecoder) -> None:
        def parameters(build: BuildDecoder, width: int) -> int:
            with torch.device("meta"):  # sizes without numbers
                decoder = build(sizes=replace(sizes, hidden=width), rnn=rnn)
            return sum(parameter.numel() for parameter in decoder.parameters())

        def excess(width: int) -> int:
            return parameters(PlainDecoder, width) + width * sizes.hidden - wanted

        wanted, low, high = parameters(as_large_as, sizes.hidden), 0, 1
        while excess(high) < 0:
            low, high = high, 2 * high
        while high - low > 1:  # too few parameters at low, enough at high
            middle = (low + high) // 2
            low, high = (middle, high) if excess(middle) < 0 else (low, middle)
        width = high if low == 0 or excess(high) <= -excess(low) else low
        super().__init__(sizes=replace(sizes, hidden=width), rnn=rnn)
        self.narrow = nn.Linear(width, sizes.hidden, bias=False)  # P
        self.output_size = sizes.hidden

    def step(self, embedded: Float[Tensor, "B T E"], state: State, memory: Memory) -> DecoderOutput:
        """Read any number of tokens with the wide state."""
        wide = super().step(embedded, state, memory)
        return replace(wide, output=self.narrow(wide.output))
