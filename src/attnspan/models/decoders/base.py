"""The interface of a decoder: the wiring between memory and output. Everything else is the same in every arm.

A decoder implements one :meth:`Decoder.step`. Unrolling along a known target is written once, in
:meth:`Decoder.unroll`; decoding strategies are in :mod:`attnspan.models.decoding`. A decoder whose steps do not wait
for one another may override ``unroll`` with a parallel form; a test holds it equal to the unrolled steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnspan.models.bridge import BuildBridge
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence, State


@dataclass(frozen=True, kw_only=True)
class DecoderOutput:
    """One step, or all steps, of a decoder.

    Attributes:
        output: what the readout turns into logits.
        state: the state after the last step.
        weights: attention weights, or None where the wiring has none.
    """

    output: Float[Tensor, "B T O"]
    state: State
    weights: Float[Tensor, "B T S"] | None


class BuildDecoder(Protocol):
    """A decoder class with its own settings filled in (``_partial_: true`` in the config)."""

    def __call__(
        self, *, embedding_size: int, hidden_size: int, memory_size: int, final_size: int, rnn: BuildRecurrence
    ) -> Decoder:
        """Build the decoder for these sizes; ``rnn`` builds its cells."""


class Decoder(nn.Module, ABC):
    """Reads target tokens and a memory, and makes what the readout turns into logits.

    Attributes:
        output_size: O, features of its output.
    """

    output_size: int

    def prepare(self, memory: Memory) -> Memory:
        """Compute what all steps share, once a source."""
        return memory

    @abstractmethod
    def start(self, memory: Memory) -> State:
        """Return the state before the first step, from a prepared memory."""

    @abstractmethod
    def step(self, embedded: Float[Tensor, "B 1 E"], state: State, memory: Memory) -> DecoderOutput:
        """Read one token.

        Args:
            embedded: the previous token, embedded.
            state: from :meth:`start` or the step before.
            memory: from :meth:`prepare`.
        """

    def unroll(self, embedded: Float[Tensor, "B T E"], memory: Memory) -> DecoderOutput:
        """Read a known target step by step from the start (teacher forcing)."""
        state, steps = self.start(memory), []
        for t in range(embedded.size(1)):
            steps.append(self.step(embedded[:, t : t + 1], state, memory))
            state = steps[-1].state
        weights = [step.weights for step in steps if step.weights is not None]
        return DecoderOutput(
            output=torch.cat([step.output for step in steps], dim=1),
            state=state,
            weights=torch.cat(weights, dim=1) if weights else None,
        )


class RecurrentDecoder(Decoder):
    """A decoder with GRU or LSTM cells, whose initial state comes from the encoder's final state.

    Args:
        input_size: features that enter the cells at each step.
        hidden_size: H.
        final_size: F, features of the encoder's final state.
        rnn: builds the cells.
        bridge: builds the map from the encoder's final state to the initial state.
    """

    def __init__(
        self, *, input_size: int, hidden_size: int, final_size: int, rnn: BuildRecurrence, bridge: BuildBridge
    ) -> None:
        super().__init__()
        self.rnn = rnn(input_size=input_size, hidden_size=hidden_size)
        self.bridge = bridge(
            final_size=final_size, hidden_size=hidden_size, layers=self.rnn.layers, parts=self.rnn.parts
        )
        self.output_size = hidden_size

    def start(self, memory: Memory) -> State:
        """The cells' initial state, parts [B, L, H]."""
        initial: State = self.bridge(memory.final_state)
        return initial
