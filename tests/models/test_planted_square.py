"""An arm that must name the place of a bright square looks at the square: the grid is where the image is.

::

    source   a dark image with one bright square, in row 1 and column 3 of its regions
    target   row1 column3

The gold regions come from the square's box in pixels, as those of a corpus do. Images of several shapes are in a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attnspan.config.instantiate import assemble_model
from attnspan.data.images.regions import Box, on_grid
from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import Compose

REGION, SIDE = 3, 2
"""Height and width in pixels of a region, and of what is planted in its upper left; no other region sees that."""
ROWS, COLUMNS, OTHERS = 4, 6, 3
"""The most rows and columns of regions in an image, two at least; and how many other regions have a single dot."""
BOS, ROW, COLUMN = 1, 4, 4 + ROWS
"""Token ids: that of the beginning, of the first row and of the first column."""


def planted(draw: torch.Generator, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Dark images [B, 1, Y, X] with a square and dots in each, their sizes [B, 2], and where the square is [B, 2]."""
    shapes = [torch.randint(2, most + 1, (number,), generator=draw) for most in (ROWS, COLUMNS)]
    grid = torch.stack(shapes, dim=1)
    sizes = grid * REGION - torch.randint(2, (number, 2), generator=draw)  # the last regions may be cut
    places = (torch.rand(1 + OTHERS, number, 2, generator=draw) * grid).long()
    images = torch.zeros(number, 1, ROWS * REGION, COLUMNS * REGION, dtype=torch.uint8)
    for other in places[1:]:
        images[range(number), 0, other[:, 0] * REGION, other[:, 1] * REGION] = 255
    for image, (row, column) in zip(images, (places[0] * REGION).tolist(), strict=True):
        image[0, row : row + SIDE, column : column + SIDE] = 255
    return images, sizes, places[0]


def gold(sizes: Tensor, place: Tensor) -> list[int]:
    """The memory position of each square, by its box."""
    positions = []
    for (height, width), (top, left) in zip(sizes.tolist(), (place * REGION).tolist(), strict=True):
        box = Box(left=left, top=top, right=left + SIDE, bottom=top + SIDE)
        found = on_grid([(box, 0)], height=height, width=width, region_size=(REGION, REGION))
        ((position, _),) = found.sure
        positions.append(position)
    return positions


def trained(composed: Compose) -> Seq2Seq:
    """A tiny model after some updates."""
    torch.manual_seed(0)
    config = composed(
        *("data=digits", "encoder=image_grid", "encoder.filters=[16]", f"encoder.strides=[[{REGION},{REGION}]]"),
        *(f"encoder.learned_positions=[{ROWS},{COLUMNS}]", "model.hidden_size=32", "model.embedding_size=8"),
    )
    model = assemble_model(config, source_vocabulary_size=None, target_vocabulary_size=COLUMN + COLUMNS)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    draw = torch.Generator().manual_seed(1)
    for _ in range(200):
        logits, _, target, _ = look(model, *planted(draw, 32))
        optimizer.zero_grad()
        F.cross_entropy(logits.transpose(1, 2), target).backward()
        optimizer.step()
    return model.eval()


def look(model: Seq2Seq, images: Tensor, sizes: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits [B, 2, V], weights [B, 2, S], the target [B, 2], and the memory position of the square [B]."""
    target = place + torch.tensor([ROW, COLUMN])
    logits, weights = model(images, sizes, F.pad(target[:, :1], (1, 0), value=BOS))
    assert weights is not None
    return logits, weights, target, torch.tensor(gold(sizes, place))


def test_the_arm_looks_at_the_square(composed: Compose) -> None:
    """Mostly twice, though what the first look saw can be enough for both words."""
    model = trained(composed)
    with torch.no_grad():
        logits, weights, target, position = look(model, *planted(torch.Generator().manual_seed(2), 300))
    at_square = weights.argmax(dim=-1) == position.unsqueeze(1)
    assert (logits.argmax(dim=-1) == target).float().mean() > 0.9
    assert at_square[:, 0].float().mean() > 0.95
    assert at_square.float().mean() > 0.8
    assert weights[torch.arange(len(position)), :, position].mean() > 0.7
