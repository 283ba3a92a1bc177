"""The decoder of Vaswani et al. 2017."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnspan.models.decoders.base import Decoder, DecoderOutput
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence, State
from attnspan.models.transformer_layers import (
    DecoderLayer,
    Positions,
    check_layers,
    initialise_matrices,
    keys_and_values,
)


class TransformerDecoder(Decoder):
    """Layers of self-attention to earlier tokens, cross-attention to the memory, and feed-forward (section 3.1).

    The state is the key-value cache: for each layer the keys and values of the t tokens read so far, [B, t, 2H]. A step
    works on the new tokens only. Keys and values of the memory are computed once a source. The weights are the last
    layer's over the memory, averaged over its heads.

    Args:
        embedding_size: E.
        hidden_size: H.
        memory_size: M.
        final_size: F; not used.
        rnn: not used.
        layers: L.
        heads: of each attention. They share H equally.
        feedforward_size: features inside the feed-forward sublayers.
        dropout: probability, on attention weights, inside the feed-forward sublayers and on a sublayer's output.
        norm_first: normalise the input of each sublayer, and the last layer's output once more; if false, normalise
            the sum of a sublayer's input and output, as in the paper.

    Raises:
        ValueError: M is not H.
    """

    layers: Iterable[DecoderLayer]

    def __init__(
        self,
        *,
        embedding_size: int,
        hidden_size: int,
        memory_size: int,
        final_size: int,
        rnn: BuildRecurrence,
        layers: int,
        heads: int,
        feedforward_size: int,
        dropout: float,
        norm_first: bool,
    ) -> None:
        super().__init__()
        check_layers(hidden_size, layers, heads, feedforward_size, dropout, norm_first)
        if memory_size != hidden_size:
            raise ValueError(
                f"model.hidden_size={hidden_size} and encoder.hidden_size={memory_size} differ, and all sublayers of a "
                "transformer's decoder have one size"
            )
        self.positions = Positions(embedding_size=embedding_size, hidden_size=hidden_size)
        self.layers = nn.ModuleList(  # type: ignore[assignment]  # to torch, any modules
            DecoderLayer(hidden_size, heads, feedforward_size, dropout, batch_first=True, norm_first=norm_first)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(hidden_size) if norm_first else nn.Identity()
        initialise_matrices(self)
        self.output_size = hidden_size

    def prepare(self, memory: Memory) -> Memory:
        """Compute the keys and values of the memory for each layer, concatenated."""
        parts = [keys_and_values(layer.multihead_attn, memory.states) for layer in self.layers]
        return memory.with_keys(torch.cat(parts, -1))

    def start(self, memory: Memory) -> State:
        """An empty cache."""
        B, _, H = memory.states.shape
        return tuple(memory.states.new_zeros(B, 0, 2 * H) for _ in self.layers)

    def step(self, embedded: Float[Tensor, "B T E"], state: State, memory: Memory) -> DecoderOutput:
        """Read any number of tokens. Each attends to itself and to those before it."""
        assert memory.keys is not None, "the memory was not prepared"
        T, t = embedded.size(1), state[0].size(1)
        causal_mask = torch.ones(1, T, t + T, dtype=torch.bool, device=embedded.device).tril(t)
        memory_mask = memory.mask.unsqueeze(1)

        output, caches = self.positions(embedded, t), []
        for layer, cache, layer_memory in zip(self.layers, state, memory.keys.chunk(len(state), dim=-1), strict=True):
            output, cache, weights = layer(output, cache, causal_mask, layer_memory, memory_mask)
            caches.append(cache)
        return DecoderOutput(output=self.norm(output), state=tuple(caches), weights=weights.mean(dim=1))

    def unroll(self, embedded: Float[Tensor, "B T E"], memory: Memory) -> DecoderOutput:
        """Read the whole target in one step."""
        return self.step(embedded, self.start(memory), memory)
