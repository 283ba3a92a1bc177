"""The transformer, a reference arm: encoder and decoder of Vaswani et al. 2017, in torch's own layers.

The layers' weights, dropouts and norms are torch's, and a test holds torch's own forward pass equal to the one here. It
is written out because torch's has no key-value cache, keeps the attention weights to itself, and takes other kernels in
evaluation than in training, in another precision under autocast.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.models.decoder import Decoded, Decoder
from attnspan.models.encoder import Encoder
from attnspan.models.memory import Memory
from attnspan.models.recurrence import BuildRecurrence, State


class TransformerEncoder(Encoder):
    """Layers of self-attention and feed-forward (section 3.1). Its last word is the mean of its states.

    Args:
        embedding_size: E, features of an embedded source token.
        hidden_size: M.
        rnn: not used, there are no cells.
        layers: L.
        heads: of each attention, side by side.
        feedforward_size: features inside the feed-forward sublayers.
        dropout: probability, on attention weights, inside the feed-forward sublayers and on what a sublayer says.
        norm_first: a sublayer normalises what it reads, and the last layer's states are normalised once more; if not,
            a sublayer normalises its sum with what it read, as in the paper.

    Raises:
        ValueError: there is no layer, or ``hidden_size`` does not fall into ``heads`` equal parts.
    """

    def __init__(
        self,
        *,
        embedding_size: int,
        hidden_size: int,
        rnn: BuildRecurrence,
        layers: int,
        heads: int,
        feedforward_size: int,
        dropout: float,
        norm_first: bool,
    ) -> None:
        super().__init__()
        _check("encoder", layers, heads, norm_first, {"encoder.hidden_size": hidden_size})
        self.positions = Positions(embedding_size=embedding_size, hidden_size=hidden_size)
        self.layers = nn.ModuleList(
            EncoderLayer(hidden_size, heads, feedforward_size, dropout, batch_first=True, norm_first=norm_first)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(hidden_size) if norm_first else nn.Identity()
        _draw(self)
        self.memory_size = hidden_size
        self.final_size = hidden_size

    def forward(self, embedded: Tensor, lengths: Tensor) -> Memory:
        """Read embedded sources [B, S, E] with lengths [B] int64, at least 1."""
        lengths = lengths.to(embedded.device, non_blocking=True).unsqueeze(1)  # [B, 1]
        mask = torch.arange(embedded.size(1), device=embedded.device) < lengths
        states = self.positions(embedded.masked_fill(~mask.unsqueeze(-1), 0.0), 0)
        for layer in self.layers:
            states = layer(states, mask.unsqueeze(1))
        states = self.norm(states).masked_fill(~mask.unsqueeze(-1), 0.0)
        return Memory.of(states, mask, (states.sum(dim=1) / lengths,))


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
        _check("decoder", layers, heads, norm_first, {"model.hidden_size": hidden_size})
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
        _draw(self)
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


class Positions(nn.Module):
    """From an embedded token y_t to P y_t + PE(t)  (section 3.5); there is no P where E = H.

    PE(t)_2i = sin(t / 10000^(2i/H)), PE(t)_2i+1 = cos(t / 10000^(2i/H)), t from 0, however long the sequence.

    The paper multiplies embeddings by sqrt(H) (section 3.4), which its code draws with variance 1/H. Those of all arms
    here are drawn with variance 1: the factor stands in them already, and once more it would drown the positions.

    Args:
        embedding_size: E.
        hidden_size: H.
    """

    def __init__(self, *, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        alike = embedding_size == hidden_size
        self.project = nn.Identity() if alike else nn.Linear(embedding_size, hidden_size, bias=False)
        self.hidden_size = hidden_size

    def forward(self, embedded: Tensor, first: int) -> Tensor:
        """[B, T, H] from embedded [B, T, E], whose first token stands at position ``first``."""
        H, device = self.hidden_size, embedded.device
        # Positions need more digits than bfloat16 has: above 256 it knows only every second one.
        exact = torch.promote_types(embedded.dtype, torch.float32)
        t = torch.arange(first, first + embedded.size(1), dtype=exact, device=device).unsqueeze(1)
        angles = t / 10000 ** (torch.arange(0, H, 2, dtype=exact, device=device) / H)  # [T, H/2]
        encoding = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :H]
        return self.project(embedded) + encoding.to(embedded.dtype)


class EncoderLayer(nn.TransformerEncoderLayer):
    """torch's layer: self-attention, then feed-forward."""

    def forward(self, x: Tensor, there: Tensor) -> Tensor:  # type: ignore[override]
        """From states [B, S, H] to states [B, S, H]; ``there`` [B, 1, S] is True at real positions."""
        query = _before(self, self.norm1, x)
        said, _ = attend(self.self_attn, query, remember(self.self_attn, query), there)
        x = _after(self, self.norm1, x + self.dropout1(said))
        said = _feed_forward(self, _before(self, self.norm2, x))
        return _after(self, self.norm2, x + self.dropout2(said))


class DecoderLayer(nn.TransformerDecoderLayer):
    """torch's layer: self-attention, then attention to the memory, then feed-forward."""

    def forward(  # type: ignore[override]
        self, x: Tensor, past: Tensor, earlier: Tensor, seen: Tensor, there: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read new tokens.

        Args:
            x: [B, T, H], the new tokens.
            past: [B, t, 2H], keys and values of the tokens before them.
            earlier: [1, T, t+T], True where a new token may look.
            seen: [B, S, 2H], keys and values of the memory.
            there: [B, 1, S], True at real positions of the memory.

        Returns:
            output [B, T, H]; keys and values [B, t+T, 2H]; the weights [B, heads, T, S] over the memory.
        """
        query = _before(self, self.norm1, x)
        past = torch.cat([past, remember(self.self_attn, query)], dim=1)
        said, _ = attend(self.self_attn, query, past, earlier)
        x = _after(self, self.norm1, x + self.dropout1(said))
        said, weights = attend(self.multihead_attn, _before(self, self.norm2, x), seen, there)
        x = _after(self, self.norm2, x + self.dropout2(said))
        said = _feed_forward(self, _before(self, self.norm3, x))
        return _after(self, self.norm3, x + self.dropout3(said)), past, weights


def remember(attention: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """[x W^K; x W^V]: the keys and values [B, S, 2H] of x [B, S, H], all heads side by side."""
    H = attention.embed_dim
    return F.linear(x, attention.in_proj_weight[H:], attention.in_proj_bias[H:])


def attend(attention: nn.MultiheadAttention, x: Tensor, remembered: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(d_k)) v in every head, the heads side by side times W^O  (section 3.2, eq. 1).

    Args:
        attention: holds the weights.
        x: [B, T, H], asks.
        remembered: [B, S, 2H] from :func:`remember`.
        visible: [B or 1, T or 1, S], True where a query may look, at one position at least.

    Returns:
        what it says [B, T, H], and the weights [B, heads, T, S], exactly 0 where nothing is visible.
    """
    H = attention.embed_dim
    asked = F.linear(x, attention.in_proj_weight[:H], attention.in_proj_bias[:H])
    q, k, v = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # [B, heads, T or S, d_k]
        for part in (asked, *remembered.chunk(2, dim=-1))
    )
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    weights = torch.softmax(scores.masked_fill(~visible.unsqueeze(1), -torch.inf), dim=-1)
    contexts = F.dropout(weights, attention.dropout, attention.training) @ v
    return attention.out_proj(contexts.transpose(1, 2).flatten(2)), weights


Layer = nn.TransformerEncoderLayer | nn.TransformerDecoderLayer


def _feed_forward(layer: Layer, x: Tensor) -> Tensor:
    """max(0, x W_1 + b_1) W_2 + b_2  (eq. 2)."""
    inside: Tensor = layer.linear2(layer.dropout(torch.relu(layer.linear1(x))))
    return inside


def _before(layer: Layer, norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """What a sublayer reads."""
    return norm(x) if layer.norm_first else x


def _after(layer: Layer, norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """What becomes of a sublayer's sum."""
    return x if layer.norm_first else norm(x)


def _draw(part: nn.Module) -> None:
    """Draw the matrices as ``torch.nn.Transformer`` does (Glorot and Bengio 2010)."""
    for parameter in part.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


def _check(part: str, layers: int, heads: int, norm_first: bool, hidden: dict[str, int]) -> None:
    ((name, size),) = hidden.items()
    for key, value in (("layers", layers), ("heads", heads)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{part}.{key}={value} must be a whole number of at least 1")
    if size % heads:
        raise ValueError(f"{name}={size} does not fall into {part}.heads={heads} equal parts")
    if not isinstance(norm_first, bool):
        raise ValueError(f"{part}.norm_first={norm_first} must be true or false")
