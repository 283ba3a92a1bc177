"""Encoders of images: a small convolutional net, whose output grid is the memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnspan.errors import SettingError, check_counts, check_numbers
from attnspan.models.encoders.base import Encoder
from attnspan.models.memory import Memory
from attnspan.models.recurrence.recurrence import BuildRecurrence, Recurrence

_KERNEL = 3
"""Height and width of a convolution."""


class ConvolutionalGrid(nn.Module):
    """Convolutions of 3 x 3, each with ReLU: images [B, C, Y, X] to grids [B, R, K, G] of regions.

    A convolution with a stride makes the grid smaller, which in place of max pooling is as good (Springenberg et al.
    2015) and has a deterministic gradient on GPUs. A side that a stride does not divide is rounded up.

    After every convolution whatever lies beyond an image is set to 0, which is what a convolution sees beyond its edge.
    So an image gives the same numbers alone and next to larger ones. There is no normalisation over positions or over
    the batch. So that a signal keeps its size from layer to layer, weights are drawn as in He et al. (2015, eq. 10):
    with torch's own, smaller ones a net of three convolutions learns nothing.

    Args:
        input_channels: C.
        filters: features after each convolution; the last is G.
        strides: of each convolution, downwards and to the right: 1 to 3, or it would skip pixels.

    Raises:
        SettingError: a setting cannot be.
    """

    def __init__(self, *, input_channels: int, filters: Sequence[int], strides: Sequence[Sequence[int]]) -> None:
        super().__init__()
        check_counts(input_channels=input_channels)
        if not filters:
            raise SettingError("filters", "must be a list of at least one number, as in [16,32]")
        for number in filters:
            check_counts(filters=number)
        if len(strides) != len(filters) or any(len(pair) != 2 for pair in strides):
            raise SettingError("strides", f"must have a [height, width] for each of filters={list(filters)}")
        for stride in (stride for pair in strides for stride in pair):
            check_counts(strides=stride)
            if stride > _KERNEL:
                raise SettingError("strides", f"must be at most {_KERNEL}, or pixels are skipped, not {stride}")
        self.strides = [(pair[0], pair[1]) for pair in strides]
        self.features = filters[-1]
        self.region_size = (prod(down for down, _ in self.strides), prod(right for _, right in self.strides))
        sizes = [input_channels, *filters]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size=_KERNEL, padding=_KERNEL // 2, stride=stride)
            for before, after, stride in zip(sizes, filters, self.strides, strict=False)
        )
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv2d)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)

    def forward(self, pixels: Float[Tensor, "B C Y X"], sizes: Int[Tensor, "B 2"]) -> Float[Tensor, "B R K G"]:
        """Look at images of ``sizes``, on the CPU. What is beyond an image's own grid is 0."""
        sizes = sizes.to(pixels.device, non_blocking=True)
        features = pixels.masked_fill(~_inside(sizes, pixels), 0.0)
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            sizes = grids(sizes, stride)
            features = torch.relu(convolution(features))
            features = features.masked_fill(~_inside(sizes, features), 0.0)
        return features.permute(0, 2, 3, 1)


class GridEncoder(Encoder):
    """The regions of a grid, row by row, are the memory (Xu et al. 2015, section 3.1.1).

    h_j = tanh(W n(g_j) + p_row + q_column), with g_j from the grid and n a layer norm over the features of one region;
    p and q are 0 without ``learned_positions``. The final state is the mean of the regions (section 3.1.2).

    Memory position j of an image with K columns is row j // K and column j % K of its own grid, whatever else is in the
    batch; padding comes after the last region, as with tokens.

    Args:
        grid: a module with ``region_size`` and G, ``features``, that maps images [B, C, Y, X] and their sizes, on the
            CPU, to grids [B, R, K, G].
        input_channels: C, 1 for grey values, 3 for colours.
        hidden_size: M.
        learned_positions: the most rows and columns that have a learned vector; those beyond share the last one. None
            for no such vectors.
        dropout: probability, of the regions' features before W.
    """

    def __init__(
        self,
        *,
        grid: Any,
        input_channels: int,
        hidden_size: int,
        learned_positions: Sequence[int] | None,
        dropout: float,
    ) -> None:
        super().__init__()
        check_counts(hidden_size=hidden_size)
        check_numbers(dropout=dropout, below=1)
        self.grid = grid
        self.norm: nn.Module = nn.LayerNorm(grid.features)
        self.projection = nn.Linear(grid.features, hidden_size)
        nn.init.xavier_normal_(self.projection.weight, gain=nn.init.calculate_gain("tanh"))
        self.positions = nn.ModuleList()
        if learned_positions is not None:
            if len(learned_positions) != 2:
                raise SettingError("learned_positions", "must be [rows, columns], or null for none")
            for number in learned_positions:
                check_counts(learned_positions=number)
            self.positions.extend(_vectors(number, hidden_size) for number in learned_positions)
        self.dropout = nn.Dropout(dropout)
        self.input_channels = input_channels
        self.region_size = self.grid.region_size
        self.memory_size = self.final_size = hidden_size

    def forward(self, embedded: Float[Tensor, "B C Y X"], lengths: Int[Tensor, "B 2"]) -> Memory:
        """Look at images with ``lengths`` pixels in height and width, at least 1."""
        shapes = grids(lengths, self.grid.region_size)
        on_device = shapes.to(embedded.device, non_blocking=True)
        features = self.grid(embedded, lengths)
        longest = int(shapes.prod(dim=1).max())  # on the CPU: nothing waits for it
        states, mask = row_by_row(self.regions(features, on_device), on_device, longest)
        states = states.masked_fill(~mask.unsqueeze(-1), 0.0)
        return Memory.of(states, mask, (self.final(states, mask, on_device),))

    def final(
        self, states: Float[Tensor, "B S M"], mask: Bool[Tensor, "B S"], shapes: Int[Tensor, "B 2"]
    ) -> Float[Tensor, "B F"]:
        """The final state of grids of ``shapes``, whose regions stand row by row; padding is 0."""
        return states.sum(dim=1) / mask.sum(dim=1, keepdim=True)

    def regions(self, features: Float[Tensor, "B R K G"], shapes: Int[Tensor, "B 2"]) -> Float[Tensor, "B R K M"]:
        """h of each region; anything may stand beyond an image's own grid."""
        projected = self.projection(self.dropout(self.norm(features)))
        for side, table in enumerate(self.positions):
            assert isinstance(table, nn.Embedding)
            places = torch.arange(features.size(1 + side), device=features.device).clamp(max=table.num_embeddings - 1)
            vectors = table(places)
            projected = projected + (vectors.unsqueeze(1) if side == 0 else vectors)
        return torch.tanh(projected)


class ImageGridEncoder(GridEncoder):
    """A :class:`GridEncoder` with a small convolutional net, which is trained with the rest.

    Args, besides those of :class:`GridEncoder` and of :class:`~attnspan.models.encoders.base.BuildEncoder`:
        filters, strides: see :class:`ConvolutionalGrid`.
    """

    def __init__(
        self,
        *,
        embedding_size: int,
        rnn: BuildRecurrence,
        input_channels: int,
        hidden_size: int,
        filters: Sequence[int],
        strides: Sequence[Sequence[int]],
        learned_positions: Sequence[int] | None,
        dropout: float,
    ) -> None:
        super().__init__(
            grid=ConvolutionalGrid(input_channels=input_channels, filters=filters, strides=strides),
            input_channels=input_channels,
            hidden_size=hidden_size,
            learned_positions=learned_positions,
            dropout=dropout,
        )


class ImageRowsEncoder(ImageGridEncoder):
    """The same, read along each row in both directions (Deng et al. 2017, section 4).

    h_rk = [forward; backward] of a recurrence over the regions of row r. Each direction starts row r from a learned
    state, for cells that all rows share cannot know which row they read.

    The final state is the mean of the regions as in :class:`ImageGridEncoder`, or with ``row_ends``, of R rows and K
    columns, the mean over r of [forward h_rK; backward h_r1]: of one row what the encoder of a text hands over.

    Args, besides those of :class:`ImageGridEncoder`:
        rows: the most rows that have a learned first state; those beyond share the last one.
        final_state: ``mean`` of the regions, or ``row_ends``, what each direction knows at the end of a row.
    """

    def __init__(
        self,
        *,
        embedding_size: int,
        rnn: BuildRecurrence,
        input_channels: int,
        hidden_size: int,
        filters: Sequence[int],
        strides: Sequence[Sequence[int]],
        learned_positions: Sequence[int] | None,
        dropout: float,
        rows: int,
        final_state: str = "mean",
    ) -> None:
        super().__init__(
            embedding_size=embedding_size,
            rnn=rnn,
            input_channels=input_channels,
            hidden_size=hidden_size,
            filters=filters,
            strides=strides,
            learned_positions=learned_positions,
            dropout=dropout,
        )
        check_counts(rows=rows)
        if hidden_size % 2:
            raise SettingError("hidden_size", f"must be even, because each direction has half of it, not {hidden_size}")
        if final_state not in ("mean", "row_ends"):
            raise SettingError("final_state", f"must be mean or row_ends, not {final_state!r}")
        self.final_state = final_state
        half = hidden_size // 2
        directions = [rnn(input_size=hidden_size, hidden_size=half, layers=1) for _ in range(2)]
        self.first_states = nn.ModuleList(_vectors(rows, half * cells.parts) for cells in directions)
        self.directions = nn.ModuleList(directions)

    def regions(self, features: Float[Tensor, "B R K G"], shapes: Int[Tensor, "B 2"]) -> Float[Tensor, "B R K M"]:
        """Read each row forwards, and reversed within its own length, so that padding always comes last."""
        states = super().regions(features, shapes)
        B, R, K, _ = states.shape
        columns = torch.arange(K, device=states.device)  # [K]
        width = shapes[:, 1].repeat_interleave(R).unsqueeze(1)  # [B R, 1]
        inside = columns < width
        inputs = states.flatten(0, 1).masked_fill(~inside.unsqueeze(-1), 0.0)
        backwards = torch.where(inside, width - 1 - columns, columns)
        read = [
            self._read(0, inputs, B, R),
            _reorder(self._read(1, _reorder(inputs, backwards), B, R), backwards),
        ]
        return torch.cat(read, dim=-1).unflatten(0, (B, R))

    def final(
        self, states: Float[Tensor, "B S M"], mask: Bool[Tensor, "B S"], shapes: Int[Tensor, "B 2"]
    ) -> Float[Tensor, "B F"]:
        """The final state, as ``final_state`` says."""
        if self.final_state == "mean":
            return super().final(states, mask, shapes)
        rows, columns = shapes.unsqueeze(-1).unbind(dim=1)  # [B, 1] each
        column = torch.arange(mask.size(1), device=mask.device) % columns  # [B, S]
        ends = (column == columns - 1, column == 0)
        read = [
            direction.masked_fill(~(mask & end).unsqueeze(-1), 0.0).sum(dim=1) / rows
            for direction, end in zip(states.chunk(2, dim=-1), ends, strict=True)
        ]
        return torch.cat(read, dim=-1)

    def _read(self, direction: int, inputs: Float[Tensor, "N K M"], B: int, R: int) -> Float[Tensor, "N K M2"]:
        table, cells = self.first_states[direction], self.directions[direction]
        assert isinstance(table, nn.Embedding)
        assert isinstance(cells, Recurrence)
        rows = torch.arange(R, device=inputs.device).clamp(max=table.num_embeddings - 1).repeat(B)
        first = table(rows).unsqueeze(1).chunk(cells.parts, dim=-1)
        states: Tensor = cells(inputs, first)[0]
        return states


def _vectors(number: int, size: int) -> nn.Embedding:
    """Learned vectors that begin small next to the features to which they belong."""
    vectors = nn.Embedding(number, size)
    nn.init.normal_(vectors.weight, std=0.1)
    return vectors


def row_by_row(
    regions: Float[Tensor, "B R K M"], shapes: Int[Tensor, "B 2"], longest: int
) -> tuple[Float[Tensor, "B S M"], Bool[Tensor, "B S"]]:
    """The regions of each image's own grid, of ``shapes``, in order, then padding, and the mask; S is ``longest``."""
    rows, columns = shapes.unsqueeze(-1).unbind(dim=1)  # [B, 1] each
    position = torch.arange(longest, device=regions.device)  # [S]
    mask = position < rows * columns
    place = torch.where(mask, position // columns * regions.size(2) + position % columns, 0)
    return _reorder(regions.flatten(1, 2), place), mask


def _reorder(states: Tensor, positions: Tensor) -> Tensor:
    """Pick states [B, S, M] at positions [B, S']."""
    return states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.size(-1)))


def grids(sizes: Int[Tensor, "B 2"], region_size: tuple[int, int]) -> Int[Tensor, "B 2"]:
    """Rows and columns of regions that cover images of ``sizes``, height and width; the last ones may be cut."""
    sides = [(side + step - 1) // step for side, step in zip(sizes.unbind(dim=1), region_size, strict=True)]
    return torch.stack(sides, dim=1)


def _inside(sizes: Int[Tensor, "B 2"], images: Float[Tensor, "B C Y X"]) -> Bool[Tensor, "B 1 Y X"]:
    """Where ``images`` of ``sizes`` are real."""
    height, width = sizes.unbind(dim=1)
    rows = torch.arange(images.size(2), device=images.device) < height.unsqueeze(1)
    columns = torch.arange(images.size(3), device=images.device) < width.unsqueeze(1)
    return (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)
