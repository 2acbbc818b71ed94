"""What is exported loads in the other library with strict=True and computes the same."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

import senet
from senet.utils.errors import ModelFileError
from senet.weights import export_weights, load_weights, write_weights
from tests.helpers import assert_close, randomise
from tests.slow import fast_if
from tests.weights.elsewhere import NETWORKS

X = (1, 3, 65, 65)


@torch.no_grad()
def same(here: nn.Module, library: str, there: nn.Module | None = None, relative: float = 1e-12) -> Any:
    """Exports a network, loads it there, and compares logits; gives what was exported."""
    exported = export_weights(here, library)
    if there is None:
        there = eval(exported.call, {"timm": timm, "torchvision": torchvision})
    there = there.double().eval()
    there.load_state_dict(exported.tensors, strict=True)
    x = torch.randn(X, dtype=torch.float64)
    assert_close(there(x), here(x), relative)
    return exported


def built(name: str, **options: object) -> nn.Module:
    return randomise(senet.create_model(name, num_classes=5, **options)).double().eval()


MODERN = {"stride_in": "conv2", "pool": "pad"}


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_plain(library: str) -> None:
    exported = same(built("resnet18", pool="pad"), library)
    assert exported.network == "resnet18"
    assert exported.tensors.keys() == senet.create_model("resnet18").state_dict().keys()


def test_se_of_basic_units() -> None:
    """timm has 8 hidden units for 64 channels where C / r is 4: the others are always zero."""
    exported = same(built("se_resnet18", pool="pad"), "timm")
    assert exported.call == "timm.create_model('seresnet18', num_classes=5)"
    assert exported.tensors["layer1.0.se.fc1.weight"].shape == (8, 64, 1, 1)
    assert not exported.tensors["layer1.0.se.fc1.weight"][4:].any()


def test_gain_is_folded_exactly() -> None:
    """2 s y with the squeeze of y is s (2 y) with that of 2 y and half of W1: powers of two cost no digit."""
    model = built("se_resnet18", pool="pad", init="identity")
    exported = same(model, "timm")
    assert not any("gain" in key for key in exported.tensors)
    assert torch.equal(exported.tensors["layer1.0.bn2.weight"], 2 * model.layer1[0].bn2.weight)
    assert model.layer1[0].bn2.se.gain == 2  # the network itself is as it was


def test_no_biases_are_zero_biases() -> None:
    same(built("se_resnet18", pool="pad", bias=False), "timm")


# Networks of few units: the name of the library's, and of the one here that has its architecture.
_TINY: dict[str, tuple[str, dict[str, str], str]] = {
    "timm seresnet": ("tiny50", MODERN, "seresnet50"),
    "timm seresnext": ("tinyx50", {"pool": "pad"}, "seresnext50_32x4d"),
    "timm senet154": ("tiny154", {"pool": "pad"}, "senet154"),
    "cadene se_resnet": ("tiny50", {}, "legacy_seresnet50"),
    "cadene se_resnext": ("tinyx50", {}, "legacy_seresnext50_32x4d"),
    "cadene senet154": ("tiny154", {}, "legacy_senet154"),
}


@pytest.mark.parametrize("name", _TINY)
@fast_if(lambda name: "154" not in name or name.startswith("timm"))
def test_every_kind_with_few_units(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own classes, where its names would be the whole networks."""
    tiny, options, network = _TINY[name]
    full = {"tiny50": "resnet50", "tinyx50": "resnext50_32x4d", "tiny154": "senet154_plain"}[tiny]
    model = built(f"se_{tiny}", **options)
    model.architecture["name"] = full
    build: Callable[[], nn.Module] = NETWORKS[name][0]
    monkeypatch.setattr("senet.weights.export._build", lambda library, called, options: build())
    exported = same(model, "timm", build())
    assert exported.network == network


def test_round_trip(tmp_path: Any) -> None:
    model = built("se_tiny50")
    model.architecture["name"] = "resnet50"
    tiny = NETWORKS["cadene se_resnet"][0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("senet.weights.export._build", lambda library, called, options: tiny())
        write_weights(export_weights(model, "timm").tensors, tmp_path / "out.safetensors")
        write_weights(export_weights(model, "timm").tensors, tmp_path / "out.pth")
    for name in ("out.safetensors", "out.pth"):
        back = senet.create_model("se_tiny50", num_classes=5).double().eval()
        assert load_weights(back, tmp_path / name).format == "cadene"
        assert all(torch.equal(back.state_dict()[key], value) for key, value in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "library"),
    [
        ("resnet50", MODERN, "torchvision"),
        ("resnext50_32x4d", {"pool": "pad"}, "torchvision"),
        ("resnet152", MODERN, "timm"),
        ("resnext101_32x4d", {"pool": "pad"}, "timm"),
        ("se_resnet34", {"pool": "pad"}, "timm"),
        ("se_resnet50", MODERN, "timm"),
        ("se_resnet50", {}, "timm"),
        ("se_resnet101", {"init": "identity"}, "timm"),
        ("se_resnext101_32x4d", {"pool": "pad"}, "timm"),
        ("senet154", {}, "timm"),
        ("senet154", {"pool": "pad"}, "timm"),
    ],
)
def test_whole_networks(name: str, options: dict[str, object], library: str) -> None:
    same(built(name, **options), library, relative=1e-9)


@pytest.mark.parametrize(
    ("name", "options", "library", "message"),
    [
        ("resnet20", {}, "timm", "timm has no resnet20; it has resnet18, "),
        ("se_resnet18", {"pool": "pad"}, "torchvision", "torchvision has no resnet18 with SE"),
        (
            "resnet18",
            {},
            "torchvision",
            "no resnet18 with pool='ceil', only with pool='pad': the same tensors, but another",
        ),
        ("se_resnet18", {}, "timm", "timm has no resnet18 with pool='ceil'"),
        ("resnext101_32x4d", {"pool": "pad"}, "torchvision", "torchvision has no resnext101_32x4d"),
        ("se_resnet18", {"pool": "pad", "gate": "tanh"}, "timm", "seresnet18 has SE with gate='sigmoid', and .*'tanh'"),
        ("se_resnet18", {"pool": "pad", "squeeze": "max"}, "timm", "squeeze='avg'"),
        ("se_resnet18", {"pool": "pad", "window": 224}, "timm", r"the window \(56, 56\); .*senet.set_window\(model\)"),
        (
            "se_resnet18",
            {"pool": "pad", "placement": "pre"},
            "timm",
            "at the end of the branch, and this .* layer1.0.conv1",
        ),
        ("se_resnet18", {"pool": "pad", "placement": "conv3x3"}, "timm", "this network has it at layer1.0.bn1"),
        (
            "se_resnet18",
            {"pool": "pad", "stages": 3},
            "timm",
            r"architecture: .*missing \(layer1.0.se.fc1.weight",
        ),
        (
            "se_resnet18",
            {"pool": "pad", "reduction": 2},
            "timm",
            r"layer1.0.se.fc1.weight \(32, 64, 1, 1\), here \(8, 64",
        ),
        ("bn_inception", {}, "timm", "timm has no bn_inception"),
    ],
)
def test_refuses(name: str, options: dict[str, object], library: str, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        export_weights(senet.create_model(name, **options), library)


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ModelFileError, match="a Linear is not one of senet's named networks"):
        export_weights(nn.Linear(2, 2), "timm")
    with pytest.raises(ValueError, match=re.escape("unknown weights format 'tim'; did you mean 'timm'?")):
        export_weights(senet.create_model("resnet18"), "tim")
    grey = senet.create_model("resnet18", pool="pad", in_channels=1)
    with pytest.raises(ModelFileError, match="torchvision's networks have 3 input channels, and this one has 1"):
        export_weights(grey, "torchvision")
    assert export_weights(grey, "timm").options == {"num_classes": 1000, "in_chans": 1}
