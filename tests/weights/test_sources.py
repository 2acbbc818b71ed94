"""Weights by name, through the libraries' own loading, from files of this machine."""

from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file

import senet
from senet.utils.errors import ModelFileError
from senet.weights import load_weights
from tests.helpers import assert_close
from tests.weights.elsewhere import randomise_all


@pytest.fixture
def local_timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """timm loads from this file what it would download."""
    path = tmp_path / "timm.pth"
    real = timm.create_model

    def create(name: str, pretrained: bool = False, **options: Any) -> Any:
        overlay = {"file": str(path)} if pretrained else None
        return real(name, pretrained=pretrained, pretrained_cfg_overlay=overlay, **options)

    monkeypatch.setattr(timm, "create_model", create)
    return path


def test_timm(local_timm: Path) -> None:
    there = randomise_all(timm.create_model("seresnet18"))
    torch.save(there.state_dict(), local_timm)
    model = senet.create_model("se_resnet18", weights="timm:seresnet18").double().eval()
    x = torch.randn(1, 3, 65, 65, dtype=torch.float64)
    assert_close(model(x), there(x), 1e-6)  # timm loads into a network of float32
    assert (model.weights_report.source, model.weights_report.format) == ("timm:seresnet18", "timm")
    assert model.pretrained_cfg["crop_pct"] == there.pretrained_cfg["crop_pct"]
    assert model.pretrained_cfg["interpolation"] == there.pretrained_cfg["interpolation"] == "bicubic"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnetblur18", "antialias='BlurPool2d', and this one has"),
        ("resnet18", "pool='pad', and this one has pool='ceil'"),
    ],
)
def test_what_a_library_builds_says_more_than_names(name: str, message: str, local_timm: Path) -> None:
    """The anti-aliased network has the same names and shapes, and blurs where the others have a stride."""
    torch.save(timm.create_model(name).state_dict(), local_timm)
    with pytest.raises(ModelFileError, match=message):
        load_weights(senet.create_model("resnet18"), f"timm:{name}")


def test_another_activation_is_refused(local_timm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(timm.create_model("resnet18").state_dict(), local_timm)
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, act_layer=torch.nn.SiLU))
    with pytest.raises(ModelFileError, match="activation='SiLU', and this one has activation='ReLU'"):
        senet.create_model("resnet18", weights="timm:resnet18")


def test_torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In torch's own folder of what it has downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    there = randomise_all(torchvision.models.resnet18())
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    torch.save(there.float().state_dict(), tmp_path / "hub" / "checkpoints" / Path(weights.url).name)
    there = there.double()
    x = torch.randn(1, 3, 65, 65, dtype=torch.float64)
    for name in ("torchvision:resnet18", "torchvision:resnet18.IMAGENET1K_V1"):
        model = senet.create_model("resnet18", weights=name).double().eval()
        assert_close(model(x), there(x), 1e-9)
        assert model.spec.pool == "pad"
        assert model.pretrained_cfg["label_names"] == weights.meta["categories"]
        assert model.pretrained_cfg["input_size"] == (3, 224, 224)
    se = senet.create_model("se_resnet18", weights=name, missing="gates", num_classes=4, head=False)
    assert se.pretrained_cfg["label_names"] is None
    assert se.pretrained_cfg["mean"] == (0.485, 0.456, 0.406)


def test_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = senet.create_model("resnet20", num_classes=3)
    save_file(model.state_dict(), tmp_path / "model.safetensors")

    def download(repository: str, file: str) -> str:
        assert repository == "someone/resnet20"
        if not (tmp_path / file).exists():
            raise EntryNotFoundError(f"no {file}")
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    loaded = senet.create_model("resnet20", weights="hf-hub:someone/resnet20")
    assert torch.equal(loaded.fc.weight, model.fc.weight)
    assert loaded.weights_report.source == "hf-hub:someone/resnet20"
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.safetensors")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert senet.create_model("resnet20", weights="hf-hub:someone/resnet20").num_classes == 3
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(ModelFileError, match=r"has neither of model.safetensors and pytorch_model.bin"):
        senet.create_model("resnet20", weights="hf-hub:someone/resnet20")

    def offline(repository: str, file: str) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(ModelFileError, match="is not available from hf-hub .LocalEntryNotFoundError: no connection"):
        senet.create_model("resnet20", weights="hf-hub:someone/resnet20")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("timm:", "invalid source 'timm:': expected a name after it, such as timm:seresnet50"),
        ("timm:nothing_at_all", "timm:nothing_at_all is not available from timm .*connection"),
        ("torchvision:resnet19", "torchvision:resnet19 is not available from torchvision"),
        ("torchvision:resnet18.V9", "is not available from torchvision .KeyError"),
        ("tim:resnet18", "no file at tim:resnet18"),
    ],
)
def test_refuses(source: str, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        senet.create_model("resnet18", weights=source)
