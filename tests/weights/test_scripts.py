"""Weights of repositories that are no library: NVIDIA's, and scripts that put SE into torchvision's units."""

import argparse
import functools
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from senet.models import create_model
from senet.utils.errors import ModelFileError
from senet.weights import load_weights, open_checkpoint
from tests.helpers import assert_close
from tests.slow import fast_if
from tests.weights.elsewhere import UNITS, randomise_all
from tests.weights.nvidia import NvidiaResNet


def double(name: str, **options: object) -> nn.Module:
    torch.set_default_dtype(torch.float64)
    try:
        return create_model(name, **options).eval()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("old", [False, True], ids=["layers.0.0", "layer1.0"])
@pytest.mark.parametrize(
    ("name", "wide", "se"), [("se_tinyx50", True, True), ("tinyx50", True, False), ("tiny50", False, False)]
)
def test_nvidia(name: str, wide: bool, se: bool, old: bool, tmp_path: Path) -> None:
    there = randomise_all(NvidiaResNet(UNITS, wide, se, old))
    state = {f"module.{key}": value for key, value in there.state_dict().items()}
    arch = ("se-resnext101-32x4d" if se else "resnext101-32x4d") if wide else "resnet50"
    torch.save(
        {"epoch": 9, "arch": arch, "state_dict": state, "best_prec1": torch.tensor(79.0)}, tmp_path / "m.pth.tar"
    )
    model = double(name, weights=tmp_path / "m.pth.tar")
    x = torch.randn(1, 3, 65, 65, dtype=torch.float64)
    assert_close(model(x), there(x), 1e-9)
    assert model.weights_report.covered == 100
    assert model.weights_report.format == ("nvidia" if se or not old else "torchvision/timm")
    assert model.spec.pool == "pad"
    assert model.num_classes == 5
    if se:
        assert {block.hidden_channels for block in model.modules() if hasattr(block, "hidden_channels")} == {16}
        assert model.weights_report.implied["hidden_channels"] == (16,)
        refusing = create_model(name, num_classes=5)
        with pytest.raises(ModelFileError, match="pool='pad', and this one has pool='ceil'"):
            load_weights(refusing, tmp_path / "m.pth.tar")


class Squeeze(nn.Module):
    """An SE block as scripts write it; its two layers are `fc.0` and `fc.2`, without biases."""

    def __init__(self, channels: int, bias: bool = False) -> None:
        super().__init__()
        first, last = nn.Linear(channels, channels // 16, bias), nn.Linear(channels // 16, channels, bias)
        self.fc = nn.Sequential(first, nn.ReLU(), last, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


class Basic(torchvision.models.resnet.BasicBlock):
    def __init__(self, inplanes: int, planes: int, *args: object, **options: object) -> None:
        super().__init__(inplanes, planes, *args, **options)  # type: ignore[arg-type]
        self.se = Squeeze(planes)
        self.bn2.register_forward_hook(lambda module, inputs, output: self.se(output))


class Deep(torchvision.models.resnet.Bottleneck):
    def __init__(self, inplanes: int, planes: int, *args: object, **options: object) -> None:
        super().__init__(inplanes, planes, *args, **options)  # type: ignore[arg-type]
        self.se = Squeeze(4 * planes)
        self.bn3.register_forward_hook(lambda module, inputs, output: self.se(output))


@functools.cache
def torchvision_with_se(deep: bool) -> nn.Module:
    """The best known repository of SE in PyTorch has torchvision's ResNet with such units; no test changes it."""
    block = Deep if deep else Basic
    return randomise_all(torchvision.models.ResNet(block, list(UNITS), num_classes=5))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        ("se.fc.0", "se.fc.2"),
        ("se_layer.fc.0", "se_layer.fc.2"),
        ("se_module.fc1", "se_module.fc2"),
        ("se.conv_reduce", "se.conv_expand"),
        ("se_block.excitation.0", "se_block.excitation.2"),
        ("attn.fc1", "attn.fc2"),
        ("se.fc.1", "se.fc.3"),
        ("se.conv1", "se.conv2"),
        ("se.se.1", "se.se.3"),
        ("se.conv_du.0", "se.conv_du.2"),
        ("se.squeeze", "se.expand"),
        ("SELayer.fc.0", "SELayer.fc.2"),
        ("se_block1.linear1", "se_block1.linear2"),
    ],
    ids=lambda names: names[0],
)
@fast_if(lambda deep, names: not deep or names[0] == "se.fc.0")
def test_se_in_torchvisions_units(deep: bool, names: tuple[str, str], tmp_path: Path) -> None:
    there = torchvision_with_se(deep)
    state = {
        key.replace("se.fc.0", names[0]).replace("se.fc.2", names[1]): value
        for key, value in there.state_dict().items()
    }
    torch.save({"model_state": state, "args": argparse.Namespace(lr=0.1)}, tmp_path / "model.pth")
    model = double("se_tiny50" if deep else "se_tiny18", weights=tmp_path / "model.pth")
    x = torch.randn(1, 3, 65, 65, dtype=torch.float64)
    assert_close(model(x), there(x), 1e-9)
    report = model.weights_report
    assert (report.format, report.covered) == ("torchvision with SE", 100)
    assert report.implied["bias"] is False


def test_cifar_with_se(tmp_path: Path) -> None:
    there = create_model("se_resnet20", bias=False)
    names = {key: key.replace("bn2.se.fc1", "se.fc.0").replace("bn2.se.fc2", "se.fc.2") for key in there.state_dict()}
    state = {names[key]: value for key, value in there.state_dict().items()}
    torch.save(dict(state), tmp_path / "model.pth")
    model = create_model("se_resnet20", weights=tmp_path / "model.pth")
    assert all(torch.equal(value, there.state_dict()[key]) for key, value in model.state_dict().items())


HEADS = [
    "classif",
    "last_linear",
    "linear",
    "classifier",
    "head",
    "head.fc",
    "output",
    "logits",
    "fc_out",
    "heads.head",
    "fc.1",
    "head.1",
    "classifier.0",
    "cls",
    "my_classifier",
]


@pytest.mark.parametrize("head", HEADS)
def test_classifiers_of_other_names(head: str, tmp_path: Path) -> None:
    """The number of classes is that of the file."""
    there = create_model("resnet20", num_classes=7)
    torch.save({key.replace("fc.", f"{head}."): w for key, w in dict(there.state_dict()).items()}, tmp_path / "m.pth")
    assert open_checkpoint(tmp_path / "m.pth").num_classes == 7
    model = create_model("resnet20", weights=tmp_path / "m.pth")
    assert model.num_classes == 7
    assert torch.equal(model.fc.weight, there.fc.weight)
    kept = create_model("resnet20", num_classes=3, weights=tmp_path / "m.pth", head=False)
    assert kept.weights_report.missing == ("fc.weight", "fc.bias")
    with pytest.raises(ModelFileError, match=r"fc\.weight \(7, 64\), here \(10, 64\).*head=False"):
        load_weights(create_model("resnet20"), tmp_path / "m.pth")


def test_two_layers_that_may_be_the_classifier(tmp_path: Path) -> None:
    """A projection head is none."""
    state = dict(create_model("resnet20").state_dict())
    state |= {"proj.0.weight": torch.zeros(64, 64), "proj.2.weight": state.pop("fc.weight")}
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(ModelFileError, match=r"1 missing \(fc\.weight\), 2 unexpected"):
        create_model("resnet20", weights=tmp_path / "m.pth")


def test_classifiers_of_networks_of_no_known_kind(tmp_path: Path) -> None:
    def build(head: str, classes: int = 2) -> nn.Module:
        model = nn.Module()
        model.add_module("body", nn.Conv2d(3, 4, 3))
        model.add_module(head, nn.Linear(4, classes))
        return model

    torch.save(build("classif").state_dict(), tmp_path / "m.pth")
    model = build("last_linear")
    report = load_weights(model, tmp_path / "m.pth")
    assert (report.covered, report.unexpected) == (100, ())
    assert report.converted == ("last_linear.weight", "last_linear.bias")
    other = create_model("torchvision/resnet18", num_classes=3)
    torch.save({key.replace("fc.", "classif."): w for key, w in dict(other.state_dict()).items()}, tmp_path / "m.pth")
    assert create_model("torchvision/resnet18", weights=tmp_path / "m.pth").num_classes == 3
