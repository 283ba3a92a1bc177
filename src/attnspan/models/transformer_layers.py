"""Layers of the transformer, a reference arm: encoder and decoder of Vaswani et al. 2017, in torch's own modules.

Weights, dropouts and norms are those of torch's layers, and a test holds torch's own forward pass equal to the one
here. Torch's has no key-value cache, does not return the weights of each layer, and uses other kernels in evaluation
than in training, in another precision under autocast.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.errors import SettingError, check_counts, check_numbers, check_switches
from attnspan.models.attention.hard import HardSoftmax
from attnspan.models.attention.normalisers import BuildNormaliser, Normaliser, Softmax
from attnspan.models.positions import BuildPositions, Relations, SinusoidalPositions, StackSizes, rotate
from attnspan.models.recurrence.recurrence import BuildRecurrence


class Stack(nn.Module):
    """Positions, layers and, with ``norm_first``, one more norm: what encoder and decoder share.

    Args:
        embedding_size: E.
        hidden_size: H.
        rnn: not used.
        layers: L.
        heads: of each attention. They share H equally.
        feedforward_size: features inside the feed-forward sublayers.
        dropout: probability, on attention weights, inside the feed-forward sublayers and on a sublayer's output.
        norm_first: normalise the input of each sublayer, and the last layer's output once more; if false, normalise
            the sum of a sublayer's input and output, as in the paper.
        positions: builds what tells the tokens where they stand.
        normaliser: from scores to weights, in every attention.

    Raises:
        SettingError: one of them cannot be used.
    """

    layer: type[EncoderLayer | DecoderLayer]

    def __init__(
        self,
        embedding_size: int,
        hidden_size: int,
        rnn: BuildRecurrence,
        layers: int,
        heads: int,
        feedforward_size: int,
        dropout: float,
        norm_first: bool,
        positions: BuildPositions = SinusoidalPositions,
        normaliser: BuildNormaliser = Softmax,
    ) -> None:
        super().__init__()
        check_counts(hidden_size=hidden_size, layers=layers, heads=heads, feedforward_size=feedforward_size)
        check_numbers(dropout=dropout, below=1)
        check_switches(norm_first=norm_first)
        if hidden_size % heads:
            problem = f"must divide the hidden size {hidden_size} into equal parts, and {heads} does not"
            raise SettingError("heads", problem)
        is_causal = issubclass(self.layer, nn.TransformerDecoderLayer)
        sizes = StackSizes(embedding=embedding_size, hidden=hidden_size, heads=heads, is_causal=is_causal)
        self.positions = positions(sizes=sizes)
        built = [
            self.layer(hidden_size, heads, feedforward_size, dropout, batch_first=True, norm_first=norm_first)
            for _ in range(layers)
        ]
        for layer in built:
            layer.build_normalisers(normaliser, hidden_size, heads)
        self.layers = nn.ModuleList(built)
        self.memory_size = self.final_size = self.output_size = hidden_size
        self.norm = nn.LayerNorm(hidden_size) if norm_first else nn.Identity()
        for parameter in self.parameters():  # as ``torch.nn.Transformer`` draws them (Glorot and Bengio 2010)
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self.positions.reset_parameters()


class EncoderLayer(nn.TransformerEncoderLayer):
    """torch's layer: self-attention, then feed-forward."""

    def build_normalisers(self, build: BuildNormaliser, hidden_size: int, heads: int) -> None:
        """Give its attention a normaliser."""
        self.normaliser = _soft(build(query_size=hidden_size, heads=heads))

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "B S H"], mask: Bool[Tensor, "B 1 S"], relations: Relations
    ) -> Float[Tensor, "B S H"]:
        """Compute the states; ``mask`` is True at real positions."""
        query = _norm_before(self, self.norm1, x)
        remembered = keys_and_values(self.self_attn, query, relations.angles)
        attended, _ = attend(self.self_attn, self.normaliser, query, remembered, mask, relations)
        x = _norm_after(self, self.norm1, x + self.dropout1(attended))
        inner = _feed_forward(self, _norm_before(self, self.norm2, x))
        return _norm_after(self, self.norm2, x + self.dropout2(inner))


class DecoderLayer(nn.TransformerDecoderLayer):
    """torch's layer: self-attention, then cross-attention to the memory, then feed-forward."""

    def build_normalisers(self, build: BuildNormaliser, hidden_size: int, heads: int) -> None:
        """Give each attention a normaliser."""
        self.normaliser = _soft(build(query_size=hidden_size, heads=heads))
        self.cross_normaliser = build(query_size=hidden_size, heads=heads)

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "B T H"],
        cache: Float[Tensor, "B t 2*H"],
        causal_mask: Bool[Tensor, "1 T t+T"],
        memory: Float[Tensor, "B S 2*H"],
        memory_mask: Bool[Tensor, "B 1 S"],
        relations: Relations,
    ) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B t+T 2*H"], Float[Tensor, "B heads T S"]]:
        """Read T new tokens ``x``: the output, the cache with the new tokens, and the weights over the memory.

        ``cache`` has keys and values of the t tokens before them, ``memory`` those of the memory. A mask is True where
        a new token may attend.
        """
        query = _norm_before(self, self.norm1, x)
        cache = torch.cat([cache, keys_and_values(self.self_attn, query, relations.angles)], dim=1)
        attended, _ = attend(self.self_attn, self.normaliser, query, cache, causal_mask, relations)
        x = _norm_after(self, self.norm1, x + self.dropout1(attended))
        query = _norm_before(self, self.norm2, x)
        attended, weights = attend(self.multihead_attn, self.cross_normaliser, query, memory, memory_mask)
        x = _norm_after(self, self.norm2, x + self.dropout2(attended))
        inner = _feed_forward(self, _norm_before(self, self.norm3, x))
        return _norm_after(self, self.norm3, x + self.dropout3(inner)), cache, weights


def keys_and_values(
    attention: nn.MultiheadAttention, x: Float[Tensor, "B S H"], angles: Float[Tensor, "S R"] | None = None
) -> Float[Tensor, "B S 2*H"]:
    """[x W^K; x W^V], all heads concatenated; keys rotated by ``angles``."""
    H = attention.embed_dim
    remembered = F.linear(x, attention.in_proj_weight[H:], attention.in_proj_bias[H:])
    if angles is None:
        return remembered
    keys, values = remembered.chunk(2, dim=-1)
    keys = rotate(_split(attention, keys), angles).transpose(1, 2).flatten(2)
    return torch.cat([keys, values], dim=-1)


def _soft(normaliser: Normaliser) -> Normaliser:
    """The normaliser, unless it is that of hard attention."""
    if isinstance(normaliser, HardSoftmax):
        raise SettingError(
            "normaliser", f"a Transformer looks at all positions, and {type(normaliser).__name__} at one"
        )
    return normaliser


def attend(
    attention: nn.MultiheadAttention,
    normaliser: Normaliser,
    x: Float[Tensor, "B T H"],
    remembered: Float[Tensor, "B S 2*H"],
    mask: Bool[Tensor, "#B #T S"],
    relations: Relations | None = None,
) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B heads T S"]]:
    """softmax(q k^T / sqrt(d_k) + bias) v in every head, the heads concatenated, times W^O  (section 3.2, eq. 1).

    The softmax is any normaliser. q is x W^Q, rotated as the keys are, ``remembered`` comes from
    :func:`keys_and_values`, and the mask is True where a query may attend, at one position at least. Without
    ``relations`` nothing is rotated and there is no bias. Returned are the output, and the weights, exactly 0 where the
    mask is False.
    """
    H, relations = attention.embed_dim, relations or Relations()
    queries = F.linear(x, attention.in_proj_weight[:H], attention.in_proj_bias[:H])
    q, k, v = (_split(attention, part) for part in (queries, *remembered.chunk(2, dim=-1)))
    q = q if relations.angles is None else rotate(q, relations.angles)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    scores = scores if relations.bias is None else scores + relations.bias
    weights = normaliser(scores, mask.unsqueeze(1), x)
    contexts = F.dropout(weights.to(v.dtype), attention.dropout, attention.training) @ v
    return attention.out_proj(contexts.transpose(1, 2).flatten(2)), weights


def _split(attention: nn.MultiheadAttention, x: Float[Tensor, "B T H"]) -> Float[Tensor, "B heads T d"]:
    """The heads apart; they have d = d_k features each."""
    return x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)


Layer = nn.TransformerEncoderLayer | nn.TransformerDecoderLayer


def _feed_forward(layer: Layer, x: Tensor) -> Tensor:
    """max(0, x W_1 + b_1) W_2 + b_2  (eq. 2)."""
    output: Tensor = layer.linear2(layer.dropout(torch.relu(layer.linear1(x))))
    return output


def _norm_before(layer: Layer, norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """The input of a sublayer."""
    return norm(x) if layer.norm_first else x


def _norm_after(layer: Layer, norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """From the sum of a sublayer's input and output to the next sublayer."""
    return x if layer.norm_first else norm(x)
