"""What a file or repository says of its network: timm's config.json, and `arch` and `args` of training scripts."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import save_file
from torch import nn

import senet
from senet.utils.errors import ModelFileError
from senet.weights import load_weights
from tests.helpers import assert_close
from tests.weights.elsewhere import randomise_all

CFG = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 288, 288], "crop_pct": 0.95}


@pytest.fixture(scope="module")
def there() -> nn.Module:
    return randomise_all(timm.create_model("resnet18", num_classes=5)).float()


@pytest.fixture
def repository(tmp_path: Path, there: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], str]:
    """One of the hub with timm's weights, and this config.json."""

    def download(_: str, file: str) -> str:
        if not (tmp_path / file).exists():
            raise EntryNotFoundError(f"no {file}")
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    save_file(there.state_dict(), tmp_path / "model.safetensors")

    def write(config: Any) -> str:
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
        return "hf-hub:someone/model"

    return write


DECLARED = [
    ({"architecture": "resnet18", "model_args": {"output_stride": 8}}, "dilation=.*, and this one has dilation=1"),
    ({"architecture": "resnet18", "model_args": {"act_layer": "silu"}}, "activation='SiLU', and this one has"),
    ({"architecture": "resnet18", "model_args": {"global_pool": "max"}}, "global_pool='max', and this one has"),
    ({"architecture": "resnetblur18"}, "antialias='BlurPool2d', and this one has"),
]


@pytest.mark.parametrize(("config", "message"), DECLARED)
@pytest.mark.parametrize("how", ["hub", "folder"])
def test_another_network_is_rejected(
    config: dict[str, Any], message: str, how: str, repository: Callable[[Any], str], tmp_path: Path
) -> None:
    source = repository(config)
    path = source if how == "hub" else tmp_path / "model.safetensors"
    with pytest.raises(ModelFileError, match=message):
        senet.create_model("resnet18", weights=path)
    with pytest.raises(ModelFileError, match=message):
        load_weights(senet.create_model("resnet18", num_classes=5, pool="pad"), path)


def test_the_network_itself_is_loaded_with_its_preprocessing(
    repository: Callable[[Any], str], there: nn.Module
) -> None:
    model = senet.create_model("resnet18", weights=repository({"architecture": "resnet18", "pretrained_cfg": CFG}))
    assert dict(model.weights_report.assumed) == {}
    assert model.pretrained_cfg["mean"] == (0.1, 0.2, 0.3)
    assert model.pretrained_cfg["input_size"] == (3, 288, 288)
    x = torch.randn(1, 3, 64, 64)
    assert_close(model.eval()(x), there.eval()(x), 1e-5)


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "no_such_network"},
        {"architecture": ["resnet18"], "pretrained_cfg": {"mean": None, "input_size": [3, 10**9, 1]}},
        {"architecture": "vgg16"},
        {"model_type": "bert"},
        [],
    ],
    ids=str,
)
def test_what_says_nothing_is_ignored(config: Any, repository: Callable[[Any], str]) -> None:
    model = senet.create_model("resnet18", weights=repository(config))
    assert "eps" in model.weights_report.assumed
    assert model.pretrained_cfg["mean"] == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, " " * 2_000_000, '{"a": ' + "9" * 5000 + "}"])
def test_a_broken_config_is_named(text: str, repository: Callable[[Any], str]) -> None:
    with pytest.raises(ModelFileError, match=r"config\.json cannot be read as JSON: .*repair or remove it"):
        senet.create_model("resnet18", weights=repository(text))


def test_options_of_a_config_open_no_files(repository: Callable[[Any], str], tmp_path: Path) -> None:
    args = {"checkpoint_path": str(tmp_path / "nothing.pth"), "pretrained": True, "block": "x", "layers": [9] * 9}
    model = senet.create_model("resnet18", weights=repository({"architecture": "resnet18", "model_args": args}))
    assert model.weights_report.covered == 100
    assert dict(model.weights_report.assumed) == {"options": "not compared: 'block', 'layers'"}
    source = repository({"architecture": "resnet18", "model_args": {"act_layer": "nothing"}})
    with pytest.raises(ModelFileError, match="timm's resnet18 with act_layer='nothing', which cannot be built: "):
        senet.create_model("resnet18", weights=source)


@pytest.mark.parametrize(
    ("around", "message"),
    [
        ({"arch": "resnetblur18"}, "antialias='BlurPool2d'"),
        ({"args": argparse.Namespace(model="resnet18", model_kwargs={"output_stride": 8})}, "dilation="),
        ({"arch": "resnet18", "args": argparse.Namespace(bn_eps=1e-3)}, "eps=0.001, and this one has eps=1e-05"),
        ({"hyper_parameters": {"arch": "resnetblur18"}}, "antialias='BlurPool2d'"),
        ({"arch": "resnet18", "args": argparse.Namespace(gp="max")}, "global_pool='max', and this one has"),
    ],
)
def test_what_training_scripts_save(around: dict[str, Any], message: str, there: nn.Module, tmp_path: Path) -> None:
    """timm's script saves `arch` and `args`."""
    torch.save({"epoch": 1, "state_dict": there.state_dict(), **around}, tmp_path / "model.pth.tar")
    with pytest.raises(ModelFileError, match=message):
        senet.create_model("resnet18", weights=tmp_path / "model.pth.tar")
    torch.save({"arch": "resnet18", "state_dict": there.state_dict()}, tmp_path / "model.pth.tar")
    assert dict(senet.create_model("resnet18", weights=tmp_path / "model.pth.tar").weights_report.assumed) == {}


def test_resnetaa50(tmp_path: Path) -> None:
    """All of its tensors have the names and shapes of resnet50's; its logits differ by 1.9."""
    source = timm.create_model("resnetaa50")
    message = "antialias='AvgPool2d', and this one has antialias='none'"
    model = senet.create_model("resnet50", stride_in="conv2", pool="pad")
    with pytest.raises(ModelFileError, match=message):
        load_weights(model, source)
    torch.save({"arch": "resnetaa50", "state_dict": source.state_dict()}, tmp_path / "model.pth.tar")
    with pytest.raises(ModelFileError, match=message):
        load_weights(model, tmp_path / "model.pth.tar")
    torch.save(source.state_dict(), tmp_path / "model.pth")
    assert load_weights(model, tmp_path / "model.pth").assumed["antialias"] == "none"
