"""A pretrained net as encoder: its own numbers, read from a file, never trained; one line for what is missing.

With a stand-in for timm, and where timm can be imported with timm itself.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attnspan.config.identity import run_id
from attnspan.config.instantiate import assemble_model
from attnspan.errors import InputError
from attnspan.models.contract import check_contract
from attnspan.models.encoders.backbone import BackboneEncoder
from attnspan.models.seq2seq import Seq2Seq
from tests.conftest import Compose
from tests.models import timm_stand_in

safetensors = pytest.importorskip("safetensors.torch")


@pytest.fixture(params=["stand-in", "timm"])
def net(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Tensor]]:
    """Overrides that name a net, and weights for it."""
    if request.param == "stand-in":
        monkeypatch.setitem(sys.modules, "timm", timm_stand_in)
        return "encoder.name=tiny_net encoder.stage=1", timm_stand_in.saved(5)
    try:
        import timm
    except (ImportError, RuntimeError):  # RuntimeError: a torchvision for another build of torch
        pytest.skip("timm cannot be imported")
    torch.manual_seed(5)
    return "encoder.name=resnet10t encoder.stage=2", timm.create_model("resnet10t").state_dict()


@pytest.fixture
def weights(net: tuple[str, dict[str, Tensor]], tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    safetensors.save_file(net[1], path)
    return path


def config_of(composed: Compose, net: tuple[str, Any], weights: Path | str, *overrides: str) -> dict[str, Any]:
    sizes = ("model.hidden_size=8", "model.embedding_size=5")
    path = f"encoder.weights={weights}"
    return composed("data=digits", "encoder=image_backbone", path, *sizes, *net[0].split(), *overrides)


def assembled(config: dict[str, Any]) -> Seq2Seq:
    torch.manual_seed(0)
    return assemble_model(config, source_vocabulary_size=None, target_vocabulary_size=9)


def test_regions_are_the_nets_own_and_stay_as_they_are(
    composed: Compose, net: tuple[str, dict[str, Tensor]], weights: Path
) -> None:
    """Of grey images of two sizes in one batch, each as the net gives it alone; training changes nothing of it."""
    model = assembled(config_of(composed, net, weights)).train()
    encoder = model.encoder
    assert isinstance(encoder, BackboneEncoder)
    encoder.load_pretrained()
    grid, side = encoder.grid, encoder.region_size[0]
    sizes = torch.tensor([[2 * side, 3 * side + 1], [side, 2 * side], [2 * side, 3 * side + 1]])
    pixels = torch.rand(3, 1, 2 * side, 3 * side + 1)
    pixels[1] = torch.nan  # around the image
    pixels[1, :, :side, : 2 * side] = torch.rand(1, side, 2 * side)
    features = grid(pixels, sizes)
    known = {name: value for name, value in net[1].items() if name in grid.net.state_dict()}
    assert len(known) == len(grid.net.state_dict())
    grid.net.load_state_dict(known)
    mean, std = (torch.tensor(grid.net.pretrained_cfg[part]).view(-1, 1, 1) for part in ("mean", "std"))
    for row, (height, width) in enumerate(sizes.tolist()):
        alone = grid.net((pixels[row : row + 1, :, :height, :width].expand(1, 3, height, width) - mean) / std)[-1][0]
        rows, columns = -(-height // side), -(-width // side)
        assert alone.shape == (grid.features, rows, columns)
        torch.testing.assert_close(features[row, :rows, :columns].permute(2, 0, 1), alone, atol=1e-5, rtol=1e-4)
        assert (features[row, rows:] == 0).all()
        assert (features[row, :, columns:] == 0).all()
    before = {name: value.clone() for name, value in grid.state_dict().items()}
    memory = encoder(pixels.nan_to_num(), sizes)
    memory.states.sum().backward()
    assert encoder.projection.weight.grad is not None
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in grid.net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in grid.state_dict().items())  # of batch norms, too


def test_the_contract_holds(composed: Compose, net: tuple[str, Any], weights: Path) -> None:
    check_contract(assembled(config_of(composed, net, weights, "decoder=bahdanau")))


def test_the_id_knows_the_content_and_not_the_place(
    composed: Compose, net: tuple[str, dict[str, Tensor]], weights: Path, tmp_path: Path
) -> None:
    before = run_id(config_of(composed, net, weights), data_fingerprint="a")
    moved = weights.rename(tmp_path / "moved.safetensors")
    assert run_id(config_of(composed, net, moved), data_fingerprint="a") == before
    other = tmp_path / "other.safetensors"
    safetensors.save_file({name: value + 1 for name, value in net[1].items()}, other)
    assert run_id(config_of(composed, net, other), data_fingerprint="a") != before


def test_a_finished_run_needs_the_file_no_more(composed: Compose, net: tuple[str, Any], weights: Path) -> None:
    config = config_of(composed, net, weights)
    model = assembled(config)
    model.encoder.load_pretrained()
    weights.unlink()
    again = assembled(config)
    again.load_state_dict(model.state_dict())
    with pytest.raises(InputError, match=r"^encoder\.weights: .*net\.safetensors: "):
        again.encoder.load_pretrained()


def test_a_file_of_torch_is_read_as_weights_only(
    composed: Compose, net: tuple[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    torch.save(net[1], tmp_path / "net.pth")
    assembled(config_of(composed, net, tmp_path / "net.pth")).encoder.load_pretrained()
    torch.save({**net[1], "code": Path("a")}, tmp_path / "code.pth")
    model = assembled(config_of(composed, net, tmp_path / "code.pth"))
    with pytest.raises(InputError, match=r"^encoder\.weights: .*code\.pth: cannot be read as weights") as error:
        model.encoder.load_pretrained()
    assert "\n" not in str(error.value)


def test_other_weights_are_refused(composed: Compose, net: tuple[str, dict[str, Tensor]], weights: Path) -> None:
    model = assembled(config_of(composed, net, weights))
    weights.write_bytes(b"no weights")
    with pytest.raises(InputError, match="the file has changed since the run was configured"):
        model.encoder.load_pretrained()
    other, damaged = (weights.with_name(f"{name}.safetensors") for name in ("other", "damaged"))
    safetensors.save_file({f"other.{name}": value for name, value in net[1].items()}, other)
    damaged.write_bytes(b"no weights")
    for path, words in (
        (other, r"has not the weights of timm's \w+ \(.* tensors are not there"),
        (damaged, "cannot be read as weights"),
    ):
        model = assembled(config_of(composed, net, path))
        with pytest.raises(InputError, match=words) as error:
            model.encoder.load_pretrained()
        assert "\n" not in str(error.value)


def test_what_is_missing_is_one_line(
    composed: Compose, net: tuple[str, Any], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        InputError, match=r"^encoder\.weights_sha256: none\.safetensors: cannot be read \(No such file or directory\)$"
    ):
        config_of(composed, net, "none.safetensors")
    with pytest.raises(InputError, match=r"^encoder\.weights has no value; give it one$"):
        composed("data=digits", "encoder=image_backbone")
    with pytest.raises(InputError, match=r"^encoder\.name: timm has no model 'hf-hub:a/b'"):
        assembled(config_of(composed, net, weights, "encoder.name='hf-hub:a/b'"))
    with pytest.raises(InputError, match=r"^encoder\.stage: \w+ has no feature map 9"):
        assembled(config_of(composed, net, weights, "encoder.stage=9"))
    if "tiny_net" in net[0]:
        with pytest.raises(InputError, match=r"^encoder\.name: tiny_net_of_patches gives .* 3 x 1 regions"):
            assembled(config_of(composed, net, weights, "encoder.name=tiny_net_of_patches"))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"^encoder\._target_: needs timm: pip install 'attnspan\[backbones\]'$"):
        assembled(config_of(composed, net, weights))
