"""An encoder of images whose net was trained on other images and stays as it is."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnspan.checksums import sha256
from attnspan.errors import InputError, SettingError, check_counts, first_line, reason_of
from attnspan.models.encoders.image import GridEncoder, grids
from attnspan.models.recurrence.recurrence import BuildRecurrence


class BackboneGrid(nn.Module):
    """A net of timm up to one of its stages: images [B, C, Y, X] to grids [B, R, K, G] of regions. It is never trained.

    Such a net was made for images of one size, without a mask. So images of one size are read together, each as it is,
    and an image gives the same numbers alone and next to larger ones. Grey values stand in all three channels.

    Args:
        name: of the model in timm.
        stage: of the net's stages with feature maps, from 0.

    Raises:
        SettingError: timm is not installed, has no such model, or the model does not give a grid of regions.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, name: str, stage: int) -> None:
        super().__init__()
        self.name, self.stage = name, stage
        _check_name(name)
        try:
            self.net = self._create(pretrained=False).eval().requires_grad_(False)
        except (IndexError, AssertionError, RuntimeError, TypeError, AttributeError) as error:
            raise SettingError("stage", f"{name} has no feature map {stage} ({reason_of(error)})") from error
        self.features = int(self.net.feature_info.channels()[-1])
        side = int(self.net.feature_info.reduction()[-1])
        self.region_size = (side, side)
        for part in ("mean", "std"):  # of the images that the net was trained on, with values from 0 to 1
            self.register_buffer(part, torch.tensor(self.net.pretrained_cfg[part]).view(-1, 1, 1), persistent=False)
        with torch.no_grad():
            found = self.net(torch.zeros(1, 3, 2 * side + 1, side))[-1].shape
        if found != (1, self.features, 3, 1):
            raise SettingError("name", f"{name} gives {list(found)} for an image of 3 x 1 regions; choose a ConvNet")

    def _create(self, **options: Any) -> Any:
        import timm

        return timm.create_model(self.name, features_only=True, out_indices=(self.stage,), **options)

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over weights that timm's model of this name was saved with, its last layer left out.

        Raises:
            ValueError: they are another model's.
        """
        nets = []
        with torch.random.fork_rng(devices=[]):
            for options in ({}, {"pretrained_cfg_overlay": {"state_dict": state}}):
                torch.manual_seed(0)
                nets.append(self._create(pretrained=bool(options), **options).state_dict())
        fresh, loaded = nets
        # timm skips what does not fit: such a tensor is still what was drawn.
        drawn = [name for name, value in fresh.items() if value.dim() > 1]
        if missing := [name for name in drawn if torch.equal(fresh[name], loaded[name])]:
            raise ValueError(f"{len(missing)} of {len(drawn)} tensors are not there, such as {missing[0]}")
        self.net.load_state_dict(loaded)

    def train(self, mode: bool = True) -> BackboneGrid:
        """The net stays in evaluation mode, for its batch norms."""
        super().train(mode)
        self.net.eval()
        return self

    def forward(self, pixels: Float[Tensor, "B C Y X"], sizes: Int[Tensor, "B 2"]) -> Float[Tensor, "B R K G"]:
        """Look at images of ``sizes``, on the CPU. What is beyond an image's own grid is 0."""
        rows, columns = grids(sizes, self.region_size).amax(dim=0).tolist()
        features = pixels.new_zeros(len(pixels), self.features, rows, columns)
        for height, width in sizes.unique(dim=0).tolist():
            same = ((sizes[:, 0] == height) & (sizes[:, 1] == width)).nonzero().squeeze(1).to(pixels.device)
            images = pixels[same, :, :height, :width].expand(-1, 3, -1, -1)
            with torch.no_grad():
                found = self.net((images - self.mean) / self.std)[-1]
            features[same, :, : found.size(2), : found.size(3)] = found.to(features.dtype)
        return features.permute(0, 2, 3, 1)


def _check_name(name: str) -> None:
    try:
        import timm
    except ImportError:
        raise SettingError("_target_", "needs timm: pip install 'attnspan[backbones]'") from None
    known = timm.list_models()
    if name not in known:  # timm would look elsewhere for a name with a colon
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise SettingError("name", f"timm has no model '{name}'{hint}")


class BackboneEncoder(GridEncoder):
    """The regions of a net of timm, which was trained on other images and is not trained here, are the memory.

    What follows the net is as in :class:`~attnspan.models.encoders.image.GridEncoder`, and is trained.

    Args, besides those of :class:`~attnspan.models.encoders.image.GridEncoder`:
        name: of the model in timm.
        stage: the feature map, from 0: the later, the larger its regions.
        weights: path of the weights, ``.safetensors``, or another file that ``torch.load`` reads as weights only.
        weights_sha256: of that file; a finished run needs the file no more.

    Raises:
        SettingError: a setting cannot be, or timm is not installed.
    """

    grid: BackboneGrid

    def __init__(
        self,
        *,
        embedding_size: int,
        rnn: BuildRecurrence,
        input_channels: int,
        hidden_size: int,
        name: str,
        stage: int,
        weights: str,
        weights_sha256: str,
        learned_positions: Sequence[int] | None,
        dropout: float,
    ) -> None:
        check_counts(input_channels=input_channels)
        super().__init__(
            grid=BackboneGrid(name=name, stage=stage),
            input_channels=input_channels,
            hidden_size=hidden_size,
            learned_positions=learned_positions,
            dropout=dropout,
        )
        self.path, self.weights_sha256 = Path(weights), weights_sha256

    def load_pretrained(self) -> None:
        """Read the net's weights from their file.

        Raises:
            InputError: it cannot be read, is not what it was, or has another model's weights.
        """
        where = f"encoder.weights: {self.path}"
        try:
            if sha256(self.path) != self.weights_sha256:
                raise InputError(f"{self.path}: the file has changed since the run was configured")
            if self.path.suffix == ".safetensors":
                from safetensors.torch import load_file

                state = load_file(self.path)
            else:
                state = torch.load(self.path, map_location="cpu", weights_only=True)
        except InputError as error:
            raise InputError(f"encoder.weights: {error}") from error
        except Exception as error:  # the libraries raise errors of many types
            raise InputError(f"{where}: cannot be read as weights ({first_line(error)})") from error
        try:
            self.grid.load(dict(state))
        except (ValueError, TypeError, RuntimeError, SettingError) as error:
            name = self.grid.name
            raise InputError(f"{where}: has not the weights of timm's {name} ({first_line(error)})") from error
