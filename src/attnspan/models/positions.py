"""Positions: how the tokens of a transformer's stack know where they stand.

A kind of positions enters in one of three ways, and overrides one method: :meth:`Positions.add` adds to the tokens,
:meth:`Positions.angles` rotates queries and keys, :meth:`Positions.bias` adds to the scores. The last two concern
self-attention only. Cross-attention has no positions, as in T5 and as its readers of ALiBi and RoPE have it: t and j
count different sequences.

To add one, write a class here (or in a file of your own) and a yaml in ``conf/decoder/positions/``, which is the
encoder's folder too. Its parent passes the sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnspan.errors import SettingError, check_counts


@dataclass(frozen=True, kw_only=True)
class StackSizes:
    """What a stack passes to its positions."""

    embedding: int
    """E."""
    hidden: int
    """H."""
    heads: int
    is_causal: bool
    """Whether a token attends to those before it only, as in a decoder."""


@dataclass(frozen=True, kw_only=True)
class Relations:
    """What positions do in self-attention, the same in all layers of a stack. None for nothing."""

    angles: Float[Tensor, "T R"] | None = None
    """By which the T new tokens' queries and keys are rotated, in R = d_k / 2 planes of each head."""
    bias: Float[Tensor, "heads T S"] | None = None
    """Added to the scores of the T new tokens for all S tokens so far."""


class Positions(nn.Module):
    """From an embedded token y_t to P y_t; there is no P where E = H. The base of all kinds, itself without positions.

    Args:
        sizes: from the stack.
    """

    def __init__(self, *, sizes: StackSizes) -> None:
        super().__init__()
        E, H = sizes.embedding, sizes.hidden
        self.project = nn.Identity() if E == H else nn.Linear(E, H, bias=False)

    def reset_parameters(self) -> None:
        """Draw the parameters that this kind has, after the stack has drawn all its matrices its own way."""

    def places(self, tokens: int, *, whole: bool, device: torch.device) -> Int[Tensor, " S"]:
        """The numbers of the first S = ``tokens`` tokens, ascending; ``whole``: the sequence has no others."""
        return torch.arange(tokens, device=device)

    def add(self, x: Float[Tensor, "B T H"], places: Int[Tensor, " T"]) -> Float[Tensor, "B T H"]:
        """What enters the first layer."""
        return x

    def angles(self, places: Int[Tensor, " T"], dtype: torch.dtype) -> Float[Tensor, "T R"] | None:
        """See :class:`Relations`."""
        return None

    def bias(self, queries: Int[Tensor, " T"], keys: Int[Tensor, " S"]) -> Float[Tensor, "heads T S"] | None:
        """See :class:`Relations`."""
        return None

    def forward(
        self, embedded: Float[Tensor, "B T E"], first: int, *, whole: bool
    ) -> tuple[Float[Tensor, "B T H"], Relations]:
        """Place T embedded tokens, of which the first has ``first`` before it; ``whole``: they are a whole sequence."""
        places = self.places(first + embedded.size(1), whole=whole, device=embedded.device)
        new = places[first:]
        # Angles need more digits than bfloat16 has: above 256 it cannot represent every integer.
        exact = torch.promote_types(embedded.dtype, torch.float32)
        relations = Relations(angles=self.angles(new, exact), bias=self.bias(new, places))
        return self.add(self.project(embedded), new), relations


class BuildPositions(Protocol):
    """A class of positions with its own settings filled in (``_partial_: true`` in the config)."""

    def __call__(self, *, sizes: StackSizes) -> Positions:
        """Build it for these sizes."""


class NoPositions(Positions):
    """None at all, "NoPE" (Haviv et al. 2022; Kazemnejad et al. 2023).

    Causal self-attention can count the tokens it sees. An encoder cannot: to it a source is a set.
    """


class SinusoidalPositions(Positions):
    """P y_t + PE(t)  (Vaswani et al. 2017, section 3.5).

    PE(t)_2i = sin(t / 10000^(2i/H)), PE(t)_2i+1 = cos(t / 10000^(2i/H)), t from 0, for sequences of any length.

    The paper multiplies embeddings by sqrt(H) (section 3.4), and its code draws them with variance 1/H. All arms here
    draw them with variance 1, which includes that factor: multiplied again, they would drown the positions.
    """

    def add(self, x: Float[Tensor, "B T H"], places: Int[Tensor, " T"]) -> Float[Tensor, "B T H"]:
        """P y_t + PE(t)."""
        H, exact = x.size(-1), torch.promote_types(x.dtype, torch.float32)
        t = places.to(exact).unsqueeze(1)
        angles = t / 10000 ** (torch.arange(0, H, 2, dtype=exact, device=x.device) / H)  # [T, H/2]
        encoding = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :H]
        return x + encoding.to(x.dtype)


class LearnedPositions(Positions):
    """P y_t + w_t, a vector for each t, drawn as token embeddings are, with variance 1 (Gehring et al. 2017).

    Tokens from ``max_length`` on share the last vector, and a vector is trained only as far as training reaches.

    Args, besides the sizes:
        max_length: number of vectors.
    """

    def __init__(self, *, sizes: StackSizes, max_length: int) -> None:
        super().__init__(sizes=sizes)
        check_counts(max_length=max_length)
        self.table = nn.Embedding(max_length, sizes.hidden)

    def reset_parameters(self) -> None:
        """Variance 1."""
        self.table.reset_parameters()

    def add(self, x: Float[Tensor, "B T H"], places: Int[Tensor, " T"]) -> Float[Tensor, "B T H"]:
        """P y_t + w_t."""
        return x + self.table(places.clamp(max=self.table.num_embeddings - 1))


class RotaryPositions(Positions):
    """Queries and keys are rotated by their place, so that their product depends on the distance (Su et al. 2021).

    In head features 2i and 2i+1 of the token at t, (a, b) becomes (a cos x - b sin x, a sin x + b cos x) with
    x = t 10000^(-2i/d_k)  (eq. 15 and 34). GPT-NeoX pairs feature i with i + d_k/2: the same in another order.

    Raises:
        ValueError: d_k = H / heads is odd.
    """

    def __init__(self, *, sizes: StackSizes) -> None:
        super().__init__(sizes=sizes)
        self.head_size = sizes.hidden // sizes.heads
        if self.head_size % 2:
            raise ValueError(f"features are rotated in pairs, and each of heads={sizes.heads} has {self.head_size}")

    def angles(self, places: Int[Tensor, " T"], dtype: torch.dtype) -> Float[Tensor, "T R"] | None:
        """t 10000^(-2i/d_k) for all t and i."""
        d = self.head_size
        frequencies = 10000 ** -(torch.arange(0, d, 2, dtype=dtype, device=places.device) / d)
        return places.to(dtype).unsqueeze(1) * frequencies


class T5Positions(Positions):
    """b_{h, bucket(j - t)} is added to the score of head h (Raffel et al. 2020, section 2.1).

    One bucket for each small distance, then buckets that grow logarithmically up to ``max_distance`` and one for all
    beyond. A decoder has all buckets for the past; an encoder has half of them for each side. All layers share b.

    T5 does not divide scores by sqrt(d_k) and has other norms; here nothing but the bias is taken from it.

    Args, besides the sizes:
        buckets: of distances.
        max_distance: from which on all distances share the last bucket.

    Raises:
        SettingError: there are not enough buckets, or the distance is within those of one distance each.
    """

    def __init__(self, *, sizes: StackSizes, buckets: int, max_distance: int) -> None:
        super().__init__(sizes=sizes)
        check_counts(buckets=buckets, max_distance=max_distance)
        if buckets % 4:
            raise SettingError("buckets", f"must be a multiple of 4, two for each half of a side, not {buckets}")
        per_side = buckets if sizes.is_causal else buckets // 2
        exact = per_side // 2
        if max_distance <= exact:
            raise SettingError("max_distance", f"must be more than {exact}, for nearer ones have a bucket each")
        far = [
            exact + int((per_side - exact) * math.log(distance / exact) / math.log(max_distance / exact))
            for distance in range(exact, max_distance)
        ]
        self.table = nn.Embedding(buckets, sizes.heads)  # b
        self.register_buffer("buckets", torch.tensor([*range(exact), *far, per_side - 1]), persistent=False)
        self.is_causal = sizes.is_causal

    def reset_parameters(self) -> None:
        """0: at first the scores are those without positions."""
        nn.init.zeros_(self.table.weight)

    def bucket(self, distance: Int[Tensor, "T S"]) -> Int[Tensor, "T S"]:
        """The bucket of j - t, where t is the query's place and j the key's; if causal, for j <= t."""
        buckets: Tensor = self.get_buffer("buckets")
        bucket = buckets[distance.abs().clamp(max=len(buckets) - 1)]
        return bucket if self.is_causal else bucket + self.table.num_embeddings // 2 * (distance > 0)

    def bias(self, queries: Int[Tensor, " T"], keys: Int[Tensor, " S"]) -> Float[Tensor, "heads T S"] | None:
        """b of every head."""
        distance = keys - queries.unsqueeze(1)
        bias: Tensor = self.table(self.bucket(distance)).permute(2, 0, 1)
        return bias


class AlibiPositions(Positions):
    """-m_h |t - j| is added to the score of head h (Press et al. 2022, section 3).

    For 2^k heads m_h = 2^(-8h / heads), h from 1. For other numbers the slopes of the next lower 2^k come first, then
    every second one of 2^(k+1), as in the paper's code. The paper has decoders only; in an encoder both sides count, as
    the authors advise.
    """

    def __init__(self, *, sizes: StackSizes) -> None:
        super().__init__(sizes=sizes)
        n = 2 ** math.floor(math.log2(sizes.heads))
        slopes = [2 ** (-8 * h / n) for h in range(1, n + 1)]
        slopes += [2 ** (-4 * h / n) for h in range(1, 2 * n + 1, 2)][: sizes.heads - n]
        self.register_buffer("slopes", torch.tensor(slopes), persistent=False)

    def bias(self, queries: Int[Tensor, " T"], keys: Int[Tensor, " S"]) -> Float[Tensor, "heads T S"] | None:
        """-m_h |t - j|."""
        slopes: Tensor = self.get_buffer("slopes")
        return -slopes.view(-1, 1, 1) * (keys - queries.unsqueeze(1)).abs()


class RandomisedPositions(Positions):
    """Another kind of positions, at places drawn from a range far longer than any sequence (Ruoss et al. 2023).

    In training every batch draws as many different places of 0 ... max_position - 1 as its longest sequence has tokens,
    and sorts them. Encoder and decoder draw each for itself.

    The paper draws in tests, too. Here an example must have the same numbers alone and in a batch, and a decoder does
    not know how long its output will be. So a model draws once for all tests: ``max_length`` places, of which a
    sequence takes the first. Another seed draws others. Tokens from ``max_length`` on follow one by one.

    Args, besides the sizes:
        kind: builds the other positions.
        max_position: L of the paper.
        max_length: tokens of the longest sequence to be tested.

    Raises:
        SettingError: there are fewer places than tokens.
    """

    def __init__(self, *, sizes: StackSizes, kind: BuildPositions, max_position: int, max_length: int) -> None:
        super().__init__(sizes=sizes)
        check_counts(max_position=max_position, max_length=max_length)
        if max_length > max_position:
            raise SettingError("max_length", f"must be at most max_position={max_position}, not {max_length}")
        self.kind = kind(sizes=replace(sizes, embedding=sizes.hidden))  # tokens are projected already
        self.max_position = max_position
        self.register_buffer("test_places", torch.randperm(max_position)[:max_length].sort().values)

    def reset_parameters(self) -> None:
        """Those of the other kind."""
        self.kind.reset_parameters()

    def places(self, tokens: int, *, whole: bool, device: torch.device) -> Int[Tensor, " S"]:
        """Places drawn anew in training, and else the same ones."""
        if self.training and whole:
            return torch.randperm(max(self.max_position, tokens), device=device)[:tokens].sort().values
        drawn: Tensor = self.get_buffer("test_places")
        beyond = torch.arange(1, 1 + max(0, tokens - len(drawn)), device=device)
        return torch.cat([drawn, drawn[-1] + beyond])[:tokens]

    def add(self, x: Float[Tensor, "B T H"], places: Int[Tensor, " T"]) -> Float[Tensor, "B T H"]:
        """As the other kind."""
        return self.kind.add(x, places)

    def angles(self, places: Int[Tensor, " T"], dtype: torch.dtype) -> Float[Tensor, "T R"] | None:
        """As the other kind."""
        return self.kind.angles(places, dtype)

    def bias(self, queries: Int[Tensor, " T"], keys: Int[Tensor, " S"]) -> Float[Tensor, "heads T S"] | None:
        """As the other kind."""
        return self.kind.bias(queries, keys)


def rotate(x: Float[Tensor, "B heads T d"], angles: Float[Tensor, "T R"]) -> Float[Tensor, "B heads T d"]:
    """Rotate the features of each head in pairs; see :class:`RotaryPositions`."""
    cos, sin = angles.cos(), angles.sin()
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2).to(x.dtype)
