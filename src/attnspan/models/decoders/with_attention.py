"""What Bahdanau's and Luong's wirings share: an attention, and a kernel that unrolls a whole target.

Such a kernel is an autograd function. Its first arguments are always the cell, the input's share of the gates, keys,
states and mask, then the weights of what else enters the cell, of the previous state, and the latter's bias. Weights
of the wiring and the initial state follow. It returns outputs, weights and parts of the final state.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.errors import SettingError, check_switches
from attnspan.kernels.cells import cell_kernel, is_supported
from attnspan.models.attention.attention import Attention
from attnspan.models.attention.normalisers import BuildNormaliser, Softmax
from attnspan.models.attention.scores import BuildScore, Score
from attnspan.models.attention.windows import BuildWindow, GlobalWindow
from attnspan.models.bridge import BuildBridge
from attnspan.models.decoders.base import DecoderOutput, Readout, RecurrentDecoder, Sizes
from attnspan.models.decoders.pointer_generator import BuildPointer
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence, CellState, State


class AttentionDecoder(RecurrentDecoder):
    """A recurrent decoder with attention. Its state is that of the cells and of the attention.

    Args, besides those of :class:`~attnspan.models.decoders.base.RecurrentDecoder`:
        score: compares the query with the memory.
        window: which positions a step may attend to.
        normaliser: from scores to weights.
        heads: attentions side by side, see :class:`~attnspan.models.attention.heads.Heads`.
        pointer: builds what lets a step copy a source token; None for nothing.
        fused: unroll by ``kernel`` where it covers these parts and the cells: the same numbers in less time.

    Raises:
        SettingError: a step copies, and its weights need not sum to 1.
    """

    kernel: type[torch.autograd.Function]
    kernel_scores: tuple[type[Score], ...]
    """The scores that the kernel covers, with one head, a softmax over all positions and one layer of cells."""

    def __init__(
        self,
        *,
        sizes: Sizes,
        rnn: BuildRecurrence,
        input_size: int,
        score: BuildScore,
        window: BuildWindow,
        normaliser: BuildNormaliser,
        heads: int,
        bridge: BuildBridge,
        pointer: BuildPointer | None,
        fused: bool,
    ) -> None:
        check_switches(fused=fused)
        super().__init__(sizes=sizes, rnn=rnn, input_size=input_size, bridge=bridge)
        self.attention = Attention(
            score=score,
            window=window,
            normaliser=normaliser,
            heads=heads,
            query_size=sizes.hidden,
            memory_size=sizes.memory,
        )
        self.pointer = None if pointer is None else pointer(sizes=sizes)
        self.copies = pointer is not None
        if self.copies and (part := self.attention.part_without_sum):
            raise SettingError("pointer", f"copies by weights that sum to 1, and those of {part} need not")
        # Exactly these classes, for a subclass may compute something else.
        parts = type(self.attention.window), type(self.attention.normaliser)
        is_covered = type(self.attention.score) in self.kernel_scores and parts == (GlobalWindow, Softmax)
        self.shares_memory = self.attention.shares_memory and not self.copies
        self.fused = fused and is_covered and heads == 1 and self.rnn.layers == 1 and is_supported(self.rnn.cells)

    def prepare(self, memory: Memory) -> Memory:
        """Compute the keys."""
        return self.attention.prepare(memory)

    def start(self, memory: Memory) -> State:
        """The cells' initial state from the bridge, and the attention's."""
        return *super().start(memory), *self.attention.start(memory)

    def unroll(self, embedded: Float[Tensor, "B T E"], memory: Memory) -> DecoderOutput:
        """Unroll along a known target, by the kernel if ``fused``."""
        if self.fused:
            return self._unroll_fused(embedded, memory)
        return super().unroll(embedded, self.attention.in_steps(memory) if torch.is_grad_enabled() else memory)

    def logits(
        self, decoded: DecoderOutput, embedded: Float[Tensor, "B T E"], memory: Memory, readout: Readout
    ) -> Float[Tensor, "B T V"]:
        """The readout's; of a decoder that copies log P, over V + S ids."""
        logits = super().logits(decoded, embedded, memory, readout)
        if self.pointer is None:
            return logits
        assert decoded.generation_logit is not None
        assert decoded.weights is not None
        assert memory.in_target is not None
        return self.pointer(logits, decoded.generation_logit, decoded.weights, memory.in_target)

    def generation_logit(self, context: Tensor, state: Tensor, embedded: Tensor) -> Float[Tensor, "B T 1"] | None:
        """That of :class:`PointerGenerator`, if the decoder copies."""
        return None if self.pointer is None else self.pointer.generation_logit(context, state, embedded)

    @abstractmethod
    def _unroll_fused(self, embedded: Tensor, memory: Memory) -> DecoderOutput:
        """Unroll by :meth:`_call_kernel`."""

    def _call_kernel(
        self, embedded: Tensor, memory: Memory, *weights: Tensor, initial: CellState
    ) -> tuple[Tensor, ...]:
        """What the kernel returns, from the wiring's own weights and the cells' initial state."""
        assert memory.keys is not None
        cells = self.rnn.cells
        assert isinstance(cells, nn.GRU | nn.LSTM)
        E = embedded.size(-1)
        input_weight, hidden_weight, input_bias, hidden_bias = cells.all_weights[0]
        input_gates = F.linear(embedded, input_weight[:, :E], input_bias)
        with torch.autocast(embedded.device.type, enabled=False):  # the recurrence stays in the weights' precision
            unrolled: tuple[Tensor, ...] = self.kernel.apply(
                cell_kernel(cells),
                *(part.to(hidden_weight.dtype) for part in (input_gates, memory.keys, memory.states)),
                memory.mask,
                input_weight[:, E:],
                hidden_weight,
                hidden_bias,
                *weights,
                *(part[:, 0].to(hidden_weight.dtype) for part in initial),
            )
        return unrolled
