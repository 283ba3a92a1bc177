"""The interface of a decoder: the wiring between memory and output. Everything else is the same in every arm.

A decoder implements one :meth:`Decoder.step`. Unrolling along a known target is written once, in
:meth:`Decoder.unroll`; decoding strategies are in :mod:`attnspan.models.decoding`. A decoder whose steps do not wait
for one another may override ``unroll`` with a parallel form; a test holds it equal to the unrolled steps.

The model has one readout, and :meth:`Decoder.logits` applies it. A decoder that mixes distributions overrides it and
returns log p. A decoder whose step depends on which token was fed, not only on its embedding, overrides
:meth:`Decoder.read` and :meth:`Decoder.read_target`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnspan.models.bridge import BuildBridge
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence, State


@dataclass(frozen=True, kw_only=True)
class Readout:
    """The model's dropout and its last layer: from outputs to logits."""

    dropout: nn.Dropout
    linear: nn.Linear

    def __call__(self, output: Float[Tensor, "*batch O"]) -> Float[Tensor, "*batch V"]:
        """W_o dropout(o) + b."""
        logits: Tensor = self.linear(self.dropout(output))
        return logits

    @property
    def dropout_probability(self) -> float:
        """0 outside training."""
        return self.dropout.p if self.dropout.training else 0.0


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Features that the model passes to its decoder: E, H, M, and F of :mod:`attnspan.models.memory`."""

    embedding: int
    hidden: int
    memory: int
    final: int
    handed_over: tuple[int, ...] = ()
    """Of the encoder's: see :class:`~attnspan.models.encoders.base.Encoder`."""


@dataclass(frozen=True, kw_only=True)
class DecoderOutput:
    """One step, or all steps, of a decoder."""

    output: Float[Tensor, "B T O"]
    """What the readout turns into logits."""
    state: State
    """The state after the last step."""
    weights: Float[Tensor, "B T S"] | None
    """Attention weights, the mean over heads where there are several, or None where the wiring has none."""
    head_weights: Float[Tensor, "B heads T S"] | None = None
    """The weights of each head; None where there is one."""
    choices: Float[Tensor, "B T S"] | None = None
    """Of hard attention in training: 1 at drawn positions, and rows of 0 for examples that draw none."""
    generation_logit: Float[Tensor, "B T 1"] | None = None
    """Of a decoder that copies, how far it does not; see
    :class:`~attnspan.models.decoders.pointer_generator.PointerGenerator`."""

    @classmethod
    def of_heads(
        cls,
        *,
        output: Float[Tensor, "B T O"],
        state: State,
        weights: Float[Tensor, "B heads T S"],
        choices: Float[Tensor, "B heads T S"] | None = None,
        generation_logit: Float[Tensor, "B T 1"] | None = None,
    ) -> DecoderOutput:
        """The output of a wiring whose attention has one head or more."""
        is_one = weights.size(1) == 1
        return cls(
            output=output,
            state=state,
            weights=weights.squeeze(1) if is_one else weights.mean(dim=1),
            head_weights=None if is_one else weights,
            choices=choices.squeeze(1) if is_one and choices is not None else None,
            generation_logit=generation_logit,
        )


class BuildDecoder(Protocol):
    """A decoder class with its own settings filled in (``_partial_: true`` in the config)."""

    def __call__(self, *, sizes: Sizes, rnn: BuildRecurrence) -> Decoder:
        """Build the decoder for these sizes; ``rnn`` builds its cells."""


class Decoder(nn.Module, ABC):
    """Reads target tokens and a memory, and makes what the readout turns into logits."""

    output_size: int
    """O, features of its output."""
    copies: bool = False
    """Its distribution has words of the source that the vocabulary lacks, so it needs :attr:`Memory.in_target`."""
    shares_memory = False
    """K rows of the state may read one row of the memory: row r K + k of the state reads row r. A beam then needs no
    copies of its sources."""

    def prepare(self, memory: Memory) -> Memory:
        """Compute what all steps share, once a source."""
        return memory

    @abstractmethod
    def start(self, memory: Memory) -> State:
        """Return the state before the first step, from a prepared memory."""

    @abstractmethod
    def step(self, embedded: Float[Tensor, "B 1 E"], state: State, memory: Memory) -> DecoderOutput:
        """Read the previous token; ``state`` is from :meth:`start` or the step before."""

    def unroll(self, embedded: Float[Tensor, "B T E"], memory: Memory) -> DecoderOutput:
        """Read a known target step by step from the start (teacher forcing)."""
        state, steps = self.start(memory), []
        for t in range(embedded.size(1)):
            steps.append(self.step(embedded[:, t : t + 1], state, memory))
            state = steps[-1].state
        weights = [step.weights for step in steps if step.weights is not None]
        head_weights = [step.head_weights for step in steps if step.head_weights is not None]
        choices = [step.choices for step in steps if step.choices is not None]
        generation_logits = [step.generation_logit for step in steps if step.generation_logit is not None]
        return DecoderOutput(
            output=torch.cat([step.output for step in steps], dim=1),
            state=state,
            weights=torch.cat(weights, dim=1) if weights else None,
            head_weights=torch.cat(head_weights, dim=2) if head_weights else None,
            choices=torch.cat(choices, dim=1) if choices else None,
            generation_logit=torch.cat(generation_logits, dim=1) if generation_logits else None,
        )

    def logits(
        self, decoded: DecoderOutput, embedded: Float[Tensor, "B T E"], memory: Memory, readout: Readout
    ) -> Float[Tensor, "B T V"]:
        """Logits of the next tokens, from what :meth:`step` or :meth:`unroll` made of ``embedded``."""
        return readout(decoded.output)

    def read(
        self,
        tokens: Int[Tensor, "B 1"],
        embedded: Float[Tensor, "B 1 E"],
        state: State,
        memory: Memory,
        readout: Readout,
    ) -> tuple[Float[Tensor, "B 1 V"], DecoderOutput]:
        """Read the previous token, an id and its embedding: logits of the next one, and the step."""
        decoded = self.step(embedded, state, memory)
        return self.logits(decoded, embedded, memory, readout), decoded

    def read_target(
        self, tokens: Int[Tensor, "B T"], embedded: Float[Tensor, "B T E"], memory: Memory, readout: Readout
    ) -> tuple[Float[Tensor, "B T V"], DecoderOutput]:
        """Read a known target from the start: what :meth:`read` gives token by token."""
        decoded = self.unroll(embedded, memory)
        return self.logits(decoded, embedded, memory, readout), decoded


class RecurrentDecoder(Decoder):
    """A decoder with recurrent cells, whose initial state comes from the encoder's final state.

    Args:
        sizes: from the model.
        rnn: builds the cells.
        input_size: features that enter the cells at each step.
        bridge: builds the map from the encoder's final state to the initial state.

    Raises:
        ValueError: the cells take over parts of the encoder's state, and the encoder has no such parts.
    """

    def __init__(self, *, sizes: Sizes, rnn: BuildRecurrence, input_size: int, bridge: BuildBridge) -> None:
        super().__init__()
        self.rnn = rnn(input_size=input_size, hidden_size=sizes.hidden)
        self.bridge = bridge(
            final_size=sizes.final, hidden_size=sizes.hidden, layers=self.rnn.layers, parts=self.rnn.bridged
        )
        wanted = tuple(self.rnn.layers * size for size in self.rnn.handed_over)
        if wanted and wanted != sizes.handed_over:
            raise ValueError(
                "cells with a memory take over the encoder's, and so need a recurrent encoder that reads with the same "
                f"cells and has as many layers, {self.rnn.layers}, and features, {sizes.hidden}, as the decoder"
            )
        self.output_size = sizes.hidden

    def start(self, memory: Memory) -> State:
        """The cells' initial state, parts [B, L, H]."""
        taken_over = zip(memory.handed_over, self.rnn.handed_over, strict=False)  # none by cells without a memory
        return (
            *self.bridge(memory.final_state),
            *(part.unflatten(1, (self.rnn.layers, size)) for part, size in taken_over),
        )
