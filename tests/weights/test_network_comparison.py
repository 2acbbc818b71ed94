"""Weights of another function are rejected where the source shows it; the report states what it does not show."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import senet
from senet.models import create_model
from senet.utils.errors import ModelFileError
from senet.weights import load_weights
from tests.helpers import assert_close
from tests.weights.elsewhere import UNITS, randomise_all

timm_resnet = timm.models.resnet


def theirs(**options: Any) -> nn.Module:
    return randomise_all(timm_resnet.ResNet(timm_resnet.Bottleneck, UNITS, num_classes=5, **options)).float()


def here() -> nn.Module:
    return create_model("tiny50", num_classes=5, stride_in="conv2", pool="pad")


def unchanged(model: nn.Module, load: Callable[[], object], message: str) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ModelFileError, match=message):
        load()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def max_pool_that_rounds_up() -> nn.Module:
    model = theirs()
    model.maxpool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
    return model


def doubled() -> nn.Module:
    """The same modules, and another forward."""
    model = theirs()
    model.forward_head = lambda x, pre_logits=False: 2 * type(model).forward_head(model, x, pre_logits)
    return model


VARIANTS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "resnetaa50": (partial(theirs, aa_layer=nn.AvgPool2d), "antialias='AvgPool2d', and this one has antialias='none'"),
    "resnetblur50": (partial(theirs, aa_layer=timm.layers.BlurPool2d), "antialias='BlurPool2d'"),
    "eps": (partial(theirs, norm_layer=partial(nn.BatchNorm2d, eps=1e-3)), "eps=0.001, and this one has eps=1e-05"),
    "output_stride=8": (partial(theirs, output_stride=8), r"dilation=.*, and this one has dilation=1"),
    "activation": (partial(theirs, act_layer=nn.SiLU), "activation='SiLU', and this one has activation='ReLU'"),
    "ceil": (max_pool_that_rounds_up, "pool='another'"),
    "global pool": (partial(theirs, global_pool="max"), "global_pool='max', and this one has global_pool='avg'"),
    "forward": (doubled, "another output for the same image"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_network_is_compared_as_a_function(name: str) -> None:
    """All tensors of these fit by name and shape: version 0.1 loaded 100 %."""
    build, message = VARIANTS[name]
    source, model = build(), here()
    assert source.state_dict().keys() == model.state_dict().keys()
    unchanged(model, lambda: load_weights(model, source), message)
    with pytest.raises(ModelFileError, match=message):
        create_model("tiny50", weights=source)


def test_the_same_function_is_loaded_and_verified() -> None:
    source, model = theirs(), here()
    report = load_weights(model, source)
    assert report.covered == 100
    assert dict(report.assumed) == {}
    assert "assumed" not in str(report)
    x = torch.randn(2, 3, 64, 64)
    assert_close(model.eval()(x), source.eval()(x), 1e-5)
    assert create_model("tiny50", weights=source).spec.stride_in == "conv2"
    legacy = randomise_all(timm.models.senet.SENet(timm.models.senet.SEResNetBottleneck, UNITS, 1, 16, num_classes=5))
    assert create_model("se_tiny50", weights=legacy).weights_report.covered == 100
    plain = senet.insert(here())
    assert dict(load_weights(plain, source, missing="gates").assumed) == {}
    assert dict(load_weights(here(), theirs(output_stride=32), head=False).assumed) == {}
    wrapped = nn.DataParallel(source)
    assert load_weights(here(), wrapped).covered == 100


def test_networks_of_no_known_kind_are_compared_by_module_and_by_running() -> None:
    def build(
        stride: int = 1, act: type[nn.Module] = nn.ReLU, pool: nn.Module | None = None, scale: float = 1
    ) -> nn.Module:
        class Net(nn.Sequential):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return scale * super().forward(x)

        parts = nn.Conv2d(3, 4, 3, stride, 1), act(), pool or nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return Net(*parts, nn.Linear(4, 2))

    for source, message in (
        (build(2), r"stride=\(2, 2\) at 0, and this one has stride=\(1, 1\) there"),
        (build(act=nn.GELU), "GELU at 1, and this one has ReLU there"),
        (build(pool=nn.MaxPool2d(2, ceil_mode=True)), "ceil_mode=True.* at 2, and this one has"),
        (build(scale=2), "another output for the same image, by 100 % of its largest value|by [0-9.]+ %"),
    ):
        model = build()
        unchanged(model, partial(load_weights, model, source), message)
    assert dict(load_weights(build(), build()).assumed) == {}


def test_what_cannot_be_run_is_assumed() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(7, 3), nn.Linear(3, 2))

    report = load_weights(build(), build())
    assert "not compared" in report.assumed["forward"]
    assert "assumed, because the weights do not say it: forward='not compared" in str(report)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["resnetaa50", "eps", "output_stride=8", "activation"])
def test_a_file_that_does_not_say_it_is_assumed(name: str, suffix: str, tmp_path: Path) -> None:
    """timm's files of today list the same modules in all of these."""
    path = tmp_path / f"model{suffix}"
    state = VARIANTS[name][0]().state_dict()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    report = load_weights(here(), path)
    expected = {
        "global_pool": "avg",
        "eps": 1e-05,
        "dilation": 1,
        "antialias": "none",
        "activation": "ReLU",
        "strides": (1, 2, 2, 2),
    }
    assert expected.items() <= dict(report.assumed).items()
    said = "assumed, because the weights do not say it: antialias='none', stride_in='conv2', pool='pad', "
    assert f"{said}activation='ReLU', eps=1e-05" in str(report)


def listed(state: Any, change: Callable[[list[str]], list[str]], path: Path) -> Path:
    """With the list of modules changed, which torch.save keeps with a state dict."""
    names = change(list(state._metadata))  # type: ignore[attr-defined]
    state._metadata = type(state)({name: {"version": 1} for name in names})  # type: ignore[attr-defined]
    torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # timm before 0.9: only units that blur have the module.
        (lambda names: [n for n in names if not n.endswith(".aa") or n == "layer2.0.aa"], "antialias='another'"),
        (lambda names: [*names, "maxpool.0", "maxpool.1"], "pool='another'"),
        (lambda names: [*names, "layer1.0.silu"], "activation='ReLU, SiLU|activation='SiLU"),
        (lambda names: [*names, "layer3.0.blurpool"], "antialias='another'"),
    ],
    ids=["aa", "maxpool", "silu", "blurpool"],
)
def test_the_list_of_modules_is_read(change: Callable[[list[str]], list[str]], message: str, tmp_path: Path) -> None:
    path = listed(theirs().state_dict(), change, tmp_path / "model.pth")
    model = here()
    unchanged(model, lambda: load_weights(model, path), message)
    with pytest.raises(ModelFileError, match=message):
        create_model("tiny50", weights=path)


def test_a_list_of_modules_without_blurs_says_so(tmp_path: Path) -> None:
    path = listed(theirs().state_dict(), lambda names: [n for n in names if not n.endswith(".aa")], tmp_path / "m.pth")
    assert "antialias" not in load_weights(here(), path).assumed
    blurred = theirs(aa_layer=nn.AvgPool2d)
    path = listed(blurred.state_dict(), lambda names: [n for n in names if n != "layer1.0.aa"], tmp_path / "m.pth")
    assert load_weights(theirs(aa_layer=nn.AvgPool2d), path).covered == 100


def test_own_files_leave_little_to_assume(tmp_path: Path) -> None:
    model = create_model("se_tiny50", num_classes=3)
    senet.save(model, tmp_path / "model.safetensors")
    assert dict(load_weights(create_model("se_tiny50", num_classes=3), tmp_path / "model.safetensors").assumed) == {}
    torch.save(model.state_dict(), tmp_path / "model.pth")
    report = load_weights(create_model("se_tiny50", num_classes=3), tmp_path / "model.pth")
    assert list(report.assumed) == ["stride_in", "pool", "strides"]
    torch.save(create_model("resnet20").state_dict(), tmp_path / "model.pth")
    other = timm_resnet.ResNet(timm_resnet.BasicBlock, (2, 2, 2, 2), norm_layer=partial(nn.BatchNorm2d, eps=1e-3))
    torch.save(create_model("resnet18", pool="pad").state_dict(), tmp_path / "model.pth")
    with pytest.raises(ModelFileError, match="eps=1e-05, and this one has eps=0.001"):
        load_weights(other, tmp_path / "model.pth")


def test_activations_with_se_are_still_activations(tmp_path: Path) -> None:
    """SE at a module gives it a class of its own."""
    model = senet.insert(theirs(), at="layer1.0.act3", example=torch.zeros(1, 3, 64, 64), init="paper")
    torch.save(model.state_dict(), tmp_path / "model.pth")
    other = senet.insert(theirs(), at="layer1.0.act3", example=torch.zeros(1, 3, 64, 64), init="paper")
    assert load_weights(other, tmp_path / "model.pth").assumed["activation"] == "ReLU"
    assert dict(load_weights(other, model).assumed) == {}
