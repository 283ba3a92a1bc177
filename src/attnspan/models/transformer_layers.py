"""The transformer, a reference arm: encoder and decoder of Vaswani et al. 2017, in torch's own layers.

The layers' weights, dropouts and norms are torch's, and a test holds torch's own forward pass equal to the one here. It
is written out because torch's has no key-value cache, keeps the attention weights to itself, and takes other kernels in
evaluation than in training, in another precision under autocast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


def draw_matrices(part: nn.Module) -> None:
    """Draw the matrices as ``torch.nn.Transformer`` does (Glorot and Bengio 2010)."""
    for parameter in part.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


def check_sizes(part: str, layers: int, heads: int, norm_first: bool, hidden: dict[str, int]) -> None:
    """Refuse settings of which no layers can be made.

    Raises:
        ValueError: names the key.
    """
    ((name, size),) = hidden.items()
    for key, value in (("layers", layers), ("heads", heads)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{part}.{key}={value} must be a whole number of at least 1")
    if size % heads:
        raise ValueError(f"{name}={size} does not fall into {part}.heads={heads} equal parts")
    if not isinstance(norm_first, bool):
        raise ValueError(f"{part}.norm_first={norm_first} must be true or false")
