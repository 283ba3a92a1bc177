"""The decoder of Vaswani et al. 2017."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from attnspan.models.decoders.base import Decoded, Decoder
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence, State
from attnspan.models.transformer_layers import DecoderLayer, Positions, check_sizes, draw_matrices, remember


class TransformerDecoder(Decoder):
    """Layers of self-attention to the tokens before, attention to the memory, and feed-forward (section 3.1).

    The state is the key-value cache: for each layer the keys and values of the t tokens read so far, [B, t, 2H]. A step
    works on the new tokens only. Keys and values of the memory are computed once a source. The weights are the last
    layer's, with which it looks at the memory, averaged over its heads.

    Args:
        embedding_size: E.
        hidden_size: H.
        memory_size: M.
        final_size: F; not used, the first step has nothing before it.
        rnn: not used, there are no cells.
        layers: L.
        heads: of each attention, side by side.
        feedforward_size: features inside the feed-forward sublayers.
        dropout: probability, on attention weights, inside the feed-forward sublayers and on what a sublayer says.
        norm_first: a sublayer normalises what it reads, and the last layer's output is normalised once more; if not, a
            sublayer normalises its sum with what it read, as in the paper.

    Raises:
        ValueError: there is no layer, H does not fall into ``heads`` equal parts, or M is not H.
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
        check_sizes("decoder", layers, heads, norm_first, {"model.hidden_size": hidden_size})
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
        draw_matrices(self)
        self.output_size = hidden_size

    def prepare(self, memory: Memory) -> Memory:
        """Compute the keys and values of the memory, [B, S, 2H] for each layer, side by side."""
        return memory.with_keys(torch.cat([remember(layer.multihead_attn, memory.states) for layer in self.layers], -1))

    def start(self, memory: Memory) -> State:
        """Nothing has been read."""
        B, _, H = memory.states.shape
        return tuple(memory.states.new_zeros(B, 0, 2 * H) for _ in self.layers)

    def step(self, embedded: Tensor, state: State, memory: Memory) -> Decoded:
        """Read any number of tokens, each of which sees itself and those before it."""
        assert memory.keys is not None, "the memory has not been prepared"
        T, t = embedded.size(1), state[0].size(1)
        earlier = torch.ones(1, T, t + T, dtype=torch.bool, device=embedded.device).tril(t)
        there = memory.mask.unsqueeze(1)

        output, read = self.positions(embedded, t), []
        for layer, past, seen in zip(self.layers, state, memory.keys.chunk(len(state), dim=-1), strict=True):
            output, past, weights = layer(output, past, earlier, seen, there)
            read.append(past)
        return Decoded(output=self.norm(output), state=tuple(read), weights=weights.mean(dim=1))

    def unroll(self, embedded: Tensor, memory: Memory) -> Decoded:
        """Read the whole target in one step."""
        return self.step(embedded, self.start(memory), memory)
