"""Encoders of images: their equations, where each region stands, and that padding never matters."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnspan.config.instantiate import assemble_model
from attnspan.errors import InputError
from attnspan.models.contract import check_contract
from attnspan.models.encoders.image import ConvolutionalGrid, ImageGridEncoder, ImageRowsEncoder
from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import Compose

SIZES = [(5, 9), (12, 3), (7, 17), (1, 1)]
ENCODERS = ("image_grid", "image_rows", "image_rows encoder.final_state=row_ends")
SMALL = ("data=digits", "model.hidden_size=8", "model.embedding_size=5", "encoder.filters=[3,4,5]")


def image_model(composed: Compose, encoder: str, *overrides: str) -> Seq2Seq:
    torch.manual_seed(0)
    config = composed(*f"encoder={encoder}".split(), *SMALL, *overrides)
    model = assemble_model(config, source_vocabulary_size=None, target_vocabulary_size=9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model.eval()


def images(channels: int = 1) -> tuple[Tensor, Tensor]:
    """A batch of images of ``SIZES``, with zeros around them, and their sizes."""
    draw = torch.Generator().manual_seed(1)
    sizes = torch.tensor(SIZES)
    batch = torch.zeros(len(SIZES), channels, 14, 18, dtype=torch.uint8)
    for row, (height, width) in enumerate(SIZES):
        batch[row, :, :height, :width] = torch.randint(256, (channels, height, width), generator=draw)
    return batch, sizes


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("arm", ["plain", "bahdanau", "luong_local_p", "transformer"])
def test_alone_as_in_a_batch(composed: Compose, float64: None, encoder: str, arm: str) -> None:
    """Loss and gradients of an image do not know what else is in the batch, nor how far it is padded."""
    options = ["encoder.learned_positions=[2,3]", *(["rnn=lstm"] if arm == "plain" else [])]
    model = image_model(composed, encoder, f"decoder={arm}", *choice(arm, encoder), *options)
    parameters = list(model.parameters())
    source, sizes = images()
    target = torch.tensor([[1, 4, 5, 6]] * len(SIZES))

    def losses(source: Tensor, sizes: Tensor, target: Tensor) -> Tensor:
        logits = model(source, sizes, target)[0]
        return F.cross_entropy(logits.transpose(1, 2), target, reduction="none").sum(dim=1)

    together = losses(source, sizes, target)
    for row, (height, width) in enumerate(SIZES):
        alone = losses(source[row : row + 1, :, :height, :width], sizes[row : row + 1], target[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], atol=1e-12, rtol=0)
        in_batch = torch.autograd.grad(together[row], parameters, retain_graph=True, allow_unused=True)
        by_itself = torch.autograd.grad(alone[0], parameters, allow_unused=True)
        for a, b in zip(in_batch, by_itself, strict=True):
            torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


def choice(arm: str, encoder: str) -> list[str]:
    """An arm may bring an encoder of its own; the image's is stronger."""
    return [*f"encoder={encoder}".split(), "decoder.heads=2"] if arm == "transformer" else []


def test_nothing_around_an_image_can_get_in(composed: Compose, float64: None, encoder: str) -> None:
    """NaN beyond the edges: neither in the memory nor in a gradient."""
    model = image_model(composed, encoder)
    source, sizes = images()
    clean = source / 255
    poisoned = torch.full_like(clean, float("nan"))
    for row, (height, width) in enumerate(SIZES):
        poisoned[row, :, :height, :width] = clean[row, :, :height, :width]
    expected, found = (model.encoder(pixels, sizes) for pixels in (clean, poisoned))
    assert torch.equal(found.states, expected.states)
    assert torch.equal(found.final_state[0], expected.final_state[0])
    found.states.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_grid_by_hand(float64: None) -> None:
    """Convolutions with strides 1 and (2, 3), written out pixel by pixel."""
    torch.manual_seed(0)
    grid = ConvolutionalGrid(input_channels=2, filters=[3, 4], strides=[[1, 1], [2, 3]])
    height, width = 5, 7
    pixels = torch.rand(1, 2, height, width)
    expected = pixels[0].numpy()
    for convolution, (down, right) in zip(grid.convolutions, grid.strides, strict=True):
        weight, bias = convolution.weight.detach().numpy(), convolution.bias.detach().numpy()
        _, Y, X = expected.shape
        after = np.zeros((len(bias), -(-Y // down), -(-X // right)))
        for out, r, k in np.ndindex(after.shape):
            total = bias[out]
            for c, dy, dx in np.ndindex(len(expected), 3, 3):
                y, x = r * down + dy - 1, k * right + dx - 1
                if 0 <= y < Y and 0 <= x < X:
                    total += weight[out, c, dy, dx] * expected[c, y, x]
            after[out, r, k] = max(total, 0)
        expected = after
    found = grid(pixels, torch.tensor([[height, width]]))
    np.testing.assert_allclose(found[0].permute(2, 0, 1).detach().numpy(), expected, atol=1e-12)
    assert grid.region_size == (2, 3)
    assert found.shape == (1, 3, 3, 4)


def test_regions_stand_row_by_row(composed: Compose, float64: None) -> None:
    """A bright square lights the memory position of its own row and column, next to a larger image too."""
    model = image_model(composed, "image_grid", "encoder.filters=[1]", "encoder.strides=[[2,3]]")
    encoder = model.encoder
    assert isinstance(encoder, ImageGridEncoder)
    encoder.norm = nn.Identity()  # of one feature it leaves nothing
    with torch.no_grad():
        convolution = encoder.grid.convolutions[0]
        convolution.weight.zero_()
        convolution.weight[0, 0, 1, 1] = 1.0  # what is in the middle
        convolution.bias.zero_()
        encoder.projection.weight.fill_(1.0)
        encoder.projection.bias.zero_()
    rows, columns = 3, 4
    for row in range(rows):
        for column in range(columns):
            pixels = torch.zeros(2, 1, 20, 30)
            pixels[0, 0, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3] = 1.0
            memory = encoder(pixels, torch.tensor([[5, 11], [20, 30]]))  # of the last row and column a part
            assert memory.mask[0].sum() == rows * columns
            assert memory.states[0].sum(dim=-1).nonzero().flatten().tolist() == [row * columns + column]


@pytest.mark.parametrize("final_state", ["mean", "row_ends"])
def test_rows_are_read_as_torch_reads_them(composed: Compose, float64: None, final_state: str) -> None:
    """Each row by itself through a bidirectional layer of torch, from the row's own first states."""
    options = [
        "rnn=lstm",
        "encoder.rows=2",
        "encoder.strides=[[2,2],[1,1],[1,1]]",
        f"encoder.final_state={final_state}",
    ]
    model = image_model(composed, "image_rows", *options)
    encoder = model.encoder
    assert isinstance(encoder, ImageRowsEncoder)
    source, sizes = images()
    memory = encoder(source / 255, sizes)
    reference = nn.LSTM(8, 4, batch_first=True, bidirectional=True)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    for suffix, direction in zip(("", "_reverse"), encoder.directions, strict=True):
        for name in names:
            getattr(reference, name + suffix).data.copy_(getattr(direction.cells, name))
    for row, (height, width) in enumerate(SIZES):
        own = source[row : row + 1, :, :height, :width] / 255
        size = torch.tensor([[height, width]])
        grid = ImageGridEncoder.regions(encoder, encoder.grid(own, size), size)
        expected = []
        for r in range(grid.size(1)):
            first = [table.weight[min(r, 1)].view(2, 1, 4) for table in encoder.first_states]
            start = tuple(torch.stack([direction[part] for direction in first]) for part in range(2))
            expected.append(reference(grid[:, r], start)[0][0])
        whole = torch.cat(expected)
        torch.testing.assert_close(memory.states[row, : len(whole)], whole, atol=1e-12, rtol=0)
        ends = torch.stack([torch.cat([states[-1, :4], states[0, 4:]]) for states in expected])
        final = (ends if final_state == "row_ends" else whole).mean(dim=0)
        torch.testing.assert_close(memory.final_state[0][row], final, atol=1e-12, rtol=0)
        assert memory.mask[row].tolist() == [at < len(whole) for at in range(memory.mask.size(1))]


@pytest.mark.parametrize("arm", ["plain", "bahdanau", "luong_general_feeding"])
def test_the_contract_holds(composed: Compose, encoder: str, arm: str) -> None:
    model = image_model(composed, encoder, f"decoder={arm}")
    check_contract(model)
    assert model.has_attention() is (arm != "plain")


def test_a_convolution_that_sees_padding_is_found(composed: Compose) -> None:
    model = copy.deepcopy(image_model(composed, "image_grid"))
    assert isinstance(model.encoder, ImageGridEncoder)

    class Unmasked(ConvolutionalGrid):
        def forward(self, pixels: Tensor, sizes: Tensor) -> Tensor:
            for convolution in self.convolutions:
                pixels = torch.relu(convolution(pixels))
            return pixels.permute(0, 2, 3, 1)

    model.encoder.grid.__class__ = Unmasked
    with pytest.raises(InputError, match="how long the others of its batch are"):
        check_contract(model)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("encoder=image_grid encoder.filters=[]", r"^encoder\.filters: must be a list of at least one number"),
        ("encoder=image_grid encoder.strides=[[2,2]]", r"^encoder\.strides: must have a \[height, width\] for each of"),
        (
            "encoder=image_grid encoder.strides=[[1,1],[4,2],[1,1]]",
            r"^encoder\.strides: must be at most 3, or pixels are skipped, not 4",
        ),
        ("encoder=image_rows encoder.learned_positions=[3]", r"^encoder\.learned_positions: must be \[rows, columns\]"),
        (
            "encoder=image_rows encoder.final_state=both",
            r"^encoder\.final_state: must be mean or row_ends, not 'both'",
        ),
        ("encoder=image_rows model.hidden_size=7", r"^encoder\.hidden_size: must be even"),
        ("encoder=bidirectional", "BidirectionalEncoder reads tokens, and the sources of this data are images"),
    ],
)
def test_what_cannot_be_is_refused(composed: Compose, overrides: str, words: str) -> None:
    config = composed("data=digits", *overrides.split())
    with pytest.raises(InputError, match=words):
        assemble_model(config, source_vocabulary_size=None, target_vocabulary_size=9)


def test_texts_are_refused(composed: Compose) -> None:
    with pytest.raises(InputError, match="ImageGridEncoder reads images, and the sources of this data are tokens"):
        assemble_model(composed("encoder=image_grid"), source_vocabulary_size=7, target_vocabulary_size=9)
