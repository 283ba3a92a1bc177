"""The decoder of Vaswani et al. 2017."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from attnspan.models.attention.normalisers import BuildNormaliser, Softmax
from attnspan.models.decoders.base import Decoder, DecoderOutput, Sizes
from attnspan.models.memory import Memory
from attnspan.models.positions import BuildPositions, SinusoidalPositions
from attnspan.models.recurrence.recurrence import BuildRecurrence, State
from attnspan.models.transformer_layers import DecoderLayer, Stack, keys_and_values


class TransformerDecoder(Stack, Decoder):
    """Layers of self-attention to earlier tokens, cross-attention to the memory, and feed-forward (section 3.1).

    The state is the key-value cache: for each layer the keys and values of the t tokens read so far, [B, t, 2H]. A step
    works on the new tokens only. Keys and values of the memory are computed once a source. The weights are the last
    layer's over the memory, averaged over its heads.

    Its settings are those of :class:`~attnspan.models.transformer_layers.Stack`.

    Raises:
        ValueError: M is not H.
    """

    layer = DecoderLayer
    layers: Iterable[DecoderLayer]  # type: ignore[assignment]

    def __init__(
        self,
        *,
        sizes: Sizes,
        rnn: BuildRecurrence,
        layers: int,
        heads: int,
        feedforward_size: int,
        dropout: float,
        norm_first: bool,
        positions: BuildPositions = SinusoidalPositions,
        normaliser: BuildNormaliser = Softmax,
    ) -> None:
        H = sizes.hidden
        if sizes.memory != H:
            raise ValueError(
                f"model.hidden_size={H} and encoder.hidden_size={sizes.memory} differ, and all sublayers of a "
                "transformer's decoder have one size"
            )
        super().__init__(
            sizes.embedding, H, rnn, layers, heads, feedforward_size, dropout, norm_first, positions, normaliser
        )

    def prepare(self, memory: Memory) -> Memory:
        """Compute the keys and values of the memory for each layer, concatenated."""
        parts = [keys_and_values(layer.multihead_attn, memory.states) for layer in self.layers]
        return replace(memory, keys=torch.cat(parts, -1))

    def start(self, memory: Memory) -> State:
        """An empty cache."""
        B, _, H = memory.states.shape
        return tuple(memory.states.new_zeros(B, 0, 2 * H) for _ in self.layers)

    def step(self, embedded: Float[Tensor, "B T E"], state: State, memory: Memory) -> DecoderOutput:
        """Read any number of tokens. Each attends to itself and to those before it."""
        return self._read(embedded, state, memory, whole=False)

    def unroll(self, embedded: Float[Tensor, "B T E"], memory: Memory) -> DecoderOutput:
        """Read the whole target in one step."""
        return self._read(embedded, self.start(memory), memory, whole=True)

    def _read(self, embedded: Tensor, state: State, memory: Memory, *, whole: bool) -> DecoderOutput:
        assert memory.keys is not None, "the memory was not prepared"
        T, t = embedded.size(1), state[0].size(1)
        causal_mask = torch.ones(1, T, t + T, dtype=torch.bool, device=embedded.device).tril(t)
        memory_mask = memory.mask.unsqueeze(1)

        (output, relations), caches = self.positions(embedded, t, whole=whole), []
        for layer, cache, layer_memory in zip(self.layers, state, memory.keys.chunk(len(state), dim=-1), strict=True):
            output, cache, weights = layer(output, cache, causal_mask, layer_memory, memory_mask, relations)
            caches.append(cache)
        return DecoderOutput.of_heads(output=self.norm(output), state=tuple(caches), weights=weights)
