"""What the encoder uses of timm, for a net of two convolutions: timm needs a torchvision that fits torch's build.

As there, weights that do not fit the net are skipped without a word, and the last layer is left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class FeatureInfo:
    def __init__(self, stage: int) -> None:
        assert stage < 2
        self._stage = stage

    def channels(self) -> list[int]:
        return [(6, 8)[self._stage]]

    def reduction(self) -> list[int]:
        return [(2, 4)[self._stage]]


class TinyNet(nn.Module):
    """Convolutions with batch norm, each with a stride of 2, and a classifier."""

    pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}  # noqa: RUF012 - as timm has it

    def __init__(self, stage: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU())
            for before, after in ((3, 6), (6, 8))
        )
        self.stage, self.feature_info = stage, FeatureInfo(stage)

    def forward(self, images: Tensor) -> list[Tensor]:
        for stage in self.stages[: self.stage + 1]:
            images = stage(images)
        return [images]


def list_models() -> list[str]:
    return ["tiny_net", "tiny_net_of_patches"]


def create_model(
    name: str,
    *,
    pretrained: bool,
    features_only: bool,
    out_indices: tuple[int, ...],
    pretrained_cfg_overlay: dict[str, Any] | None = None,
) -> TinyNet:
    assert features_only
    net = TinyNet(*out_indices)
    if name == "tiny_net_of_patches":
        net.stages[0][0].padding = (0, 0)
    if pretrained:
        assert pretrained_cfg_overlay is not None
        known = net.state_dict()
        fitting = {key: value for key, value in pretrained_cfg_overlay["state_dict"].items() if key in known}
        net.load_state_dict(fitting, strict=False)
    return net


def saved(seed: int) -> dict[str, Tensor]:
    """Weights as a model with its last layer has them."""
    torch.manual_seed(seed)
    net = TinyNet(1)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return {**net.state_dict(), "classifier.weight": torch.randn(10, 8)}
