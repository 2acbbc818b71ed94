"""Folders in timm's form: timm's own loader builds the network, with the same logits."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_model_data_config

import senet
from senet.utils.errors import ModelFileError
from senet.weights import export_weights, write_timm_folder
from tests.helpers import assert_close, randomise


def written(model: Any, folder: Path) -> Any:
    write_timm_folder(export_weights(model, "timm"), folder, model.pretrained_cfg)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


@pytest.mark.parametrize(
    ("name", "options", "theirs"),
    [
        ("se_resnet18", {"pool": "pad"}, "seresnet18"),
        ("se_resnet50", {"init": "identity"}, "legacy_seresnet50"),
        ("timm/test_efficientnet", {"drop_rate": 0.2}, "test_efficientnet"),
    ],
)
@torch.no_grad()
def test_timm_computes_the_same(name: str, options: dict[str, object], theirs: str, tmp_path: Path) -> None:
    model: Any = randomise(senet.create_model(name, num_classes=3, **options)).eval()
    model.pretrained_cfg |= {"label_names": ["a", "b", "c"], "mean": (0.1, 0.2, 0.3), "crop_pct": 0.9}
    there = written(model, tmp_path / "folder")
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert_close(there.double()(x), model.double()(x), 1e-9)
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config["architecture"] == theirs
    assert config["num_classes"] == 3
    assert config["label_names"] == ["a", "b", "c"]
    found = resolve_model_data_config(there)
    assert tuple(found["mean"]) == (0.1, 0.2, 0.3)
    assert found["crop_pct"] == 0.9
    assert tuple(found["input_size"][1:]) == tuple(model.pretrained_cfg["input_size"][1:])


@torch.no_grad()
def test_other_input_channels(tmp_path: Path) -> None:
    model = randomise(senet.create_model("se_resnet18", num_classes=3, pool="pad", in_channels=1)).eval()
    x = torch.randn(2, 1, 64, 64)
    assert_close(written(model, tmp_path)(x), model(x), 1e-5)


def test_what_timm_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="timm has no resnet20 with SE"):
        export_weights(senet.create_model("se_resnet20"), "timm")
