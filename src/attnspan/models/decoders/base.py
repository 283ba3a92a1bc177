"""What a decoder is: the wiring between memory and output. Everything else is the same in every arm.

A decoder implements one :meth:`Decoder.step`. Unrolling along a known target stands once, in :meth:`Decoder.unroll`;
searching stands in :mod:`attnspan.models.decoding.strategy`. A decoder whose steps do not wait for one another may
override ``unroll`` with a parallel path; a test holds it equal to the unrolled steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from attnspan.models.bridge import BuildBridge
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence, State


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One step, or all steps, of a decoder.

    Attributes:
        output: [B, T, O] what the readout turns into logits.
        state: the state after the last step.
        weights: [B, T, S] attention weights, or None where the wiring has none.
    """

    output: Tensor
    state: State
    weights: Tensor | None


class BuildDecoder(Protocol):
    """A decoder class with its own settings filled in (``_partial_: true`` in the config)."""

    def __call__(
        self, *, embedding_size: int, hidden_size: int, memory_size: int, final_size: int, rnn: BuildRecurrence
    ) -> Decoder:
        """Build the decoder for these sizes, of cells that ``rnn`` builds."""


class Decoder(nn.Module, ABC):
    """What search and training know of a decoder.

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


class RecurrentDecoder(Decoder):
    """A decoder with GRU or LSTM cells, which start from the encoder's last word.

    Args:
        input_size: features that enter the cells at each step.
        hidden_size: H.
        final_size: F, features of the encoder's last word.
        rnn: builds the cells.
        bridge: builds the way from the last word to the first state.
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
        """The cells' first state, parts [B, L, H]."""
        first: State = self.bridge(memory.final)
        return first
