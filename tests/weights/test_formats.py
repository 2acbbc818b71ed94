"""Weights of other libraries give here the logits that they give there."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from senet.models import create_model
from senet.utils.errors import ModelFileError
from senet.weights import load_weights, open_checkpoint
from senet.weights.formats import AS_IS, FORMATS, identify
from senet.weights.patterns import all_there, rename, reverse
from tests.helpers import assert_close
from tests.slow import fast_if
from tests.weights.elsewhere import NETWORKS, as_mmpretrain, as_monai, image, randomise_all, reference, write


@torch.no_grad()
def same(there: torch.nn.Module, here: torch.nn.Module, x: torch.Tensor) -> None:
    assert_close(here.double().eval()(x), there(x), 1e-9)


@pytest.mark.parametrize("name", NETWORKS)
@fast_if(lambda name: "154" not in name or name.startswith("timm"))
def test_logits_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    there, here, said = reference(name)
    path = write(there.state_dict(), tmp_path)
    # In float64, so that nothing is lost on the way.
    torch.set_default_dtype(torch.float64)
    try:
        model = create_model(here, weights=path)
    finally:
        torch.set_default_dtype(torch.float32)
    same(there, model, image(name))
    assert model.architecture["options"] == said
    assert model.weights_report.covered == 100
    assert model.weights_report.missing == model.weights_report.unexpected == ()
    assert model.weights_report.format == {"timm resnet": "torchvision/timm", "timm deep stem": "torchvision/timm"}.get(
        name, name.split(maxsplit=1)[0]
    )


def double(name: str, **options: object) -> torch.nn.Module:
    torch.set_default_dtype(torch.float64)
    try:
        return create_model(name, **options)
    finally:
        torch.set_default_dtype(torch.float32)


def test_mmpretrain(tmp_path: Path) -> None:
    there, here, said = reference("timm seresnet")
    contents: dict[str, Any] = {"meta": {"epoch": 100}, "state_dict": as_mmpretrain(there)}
    path = write(contents, tmp_path)
    model = double(here, weights=path)
    same(there, model, image("timm"))
    assert model.architecture["options"] == said
    assert model.weights_report.format == "mmpretrain"


@pytest.mark.parametrize("name", ["cadene se_resnet", "cadene se_resnext", "cadene senet154"])
@fast_if(lambda name: "154" not in name)
def test_monai(name: str, tmp_path: Path) -> None:
    there, here, said = reference(name)
    model = double(here, weights=write(as_monai(there), tmp_path))
    same(there, model, image(name))
    assert model.architecture["options"] == said
    assert model.weights_report.format == "monai"


# Everything of timm that there is a network for here, in full.
_TIMM = {
    "seresnet18": "se_resnet18",
    "seresnet34": "se_resnet34",
    "seresnet50": "se_resnet50",
    "seresnet101": "se_resnet101",
    "seresnet152": "se_resnet152",
    "seresnext50_32x4d": "se_resnext50_32x4d",
    "seresnext101_32x4d": "se_resnext101_32x4d",
    "senet154": "senet154",
    "legacy_seresnet50": "se_resnet50",
    "legacy_seresnet101": "se_resnet101",
    "legacy_seresnet152": "se_resnet152",
    "legacy_seresnext50_32x4d": "se_resnext50_32x4d",
    "legacy_seresnext101_32x4d": "se_resnext101_32x4d",
    "legacy_senet154": "senet154",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", _TIMM)
def test_all_of_timm(name: str, tmp_path: Path) -> None:
    there = randomise_all(timm.create_model(name))
    model = double(_TIMM[name], weights=write(there.state_dict(), tmp_path))
    same(there, model, torch.randn(2, 3, 65, 65, dtype=torch.float64))


@pytest.mark.parametrize("name", ["legacy_seresnet18", "legacy_seresnet34"])
def test_relu_before_se_is_refused(name: str, tmp_path: Path) -> None:
    """Names and shapes fit; the function has a ReLU more."""
    path = write(timm.create_model(name).state_dict(), tmp_path)
    with pytest.raises(ModelFileError, match="senet has no network for .*: .*ReLU between the last batch norm"):
        create_model(name.replace("legacy_se", "se_"), weights=path)


@pytest.mark.parametrize("name", ["seresnet50t", "seresnext26d_32x4d"])
def test_other_networks_of_timm_are_refused(name: str, tmp_path: Path) -> None:
    """Pools in their shortcuts, which have no parameters, move the convolutions' names."""
    path = write(timm.create_model(name).state_dict(), tmp_path)
    with pytest.raises(ModelFileError, match=r"does not fit the network: .*missing .*downsample\.0\.weight"):
        create_model("se_resnet50", weights=path)


def test_hidden_units_are_the_weights_own(tmp_path: Path) -> None:
    """timm rounds C / r up to a multiple of 8: 8 units for 64 channels, where C / r is 4."""
    there, here, _ = reference("timm seresnet basic")
    path = write(there.state_dict(), tmp_path)
    model = create_model(here, weights=path)
    assert model.layer1[0].bn2.se.hidden_channels == 8
    assert model.weights_report.implied["hidden_channels"] == (8,)
    with pytest.raises(ModelFileError, match=r"bn2.se.fc1.weight \(8, 64, 1, 1\), here \(4, 64\).*hidden units"):
        load_weights(create_model(here, pool="pad", num_classes=5), path)
    with pytest.raises(ModelFileError, match="hidden units"):
        create_model(here, weights=path, reduction=16)


def test_formats_are_distinguished() -> None:
    """No network is found for another library's, whatever the order of the table."""
    for name in NETWORKS:
        with torch.device("meta"):
            there = NETWORKS[name][0]()
        modules = {key.rpartition(".")[0] for key in there.state_dict()}
        found = {form.name for form in FORMATS if any(all_there(patterns, modules) for patterns in form.signatures)}
        assert found - {"torchvision/timm"} <= {name.split()[0]}, name
        assert identify(modules).name in (name.split()[0], "torchvision/timm")
    assert identify({"features.0", "classifier.6"}) is AS_IS


def test_patterns() -> None:
    names = (("stage{s}.unit{u}.se.conv{n}", "layer{s}.{u-1}.@.se.fc{n}"), ("inception_{M}/1x1", "inception_{M}.one"))
    assert rename("stage3.unit12.se.conv2", names) == "layer3.11.@.se.fc2"
    assert rename("inception_4e/1x1", names) == "inception_4e.one"
    assert rename("stage3.unit12.se.conv2.weight", names) is None
    assert rename("layer3.11.@.se.fc2", reverse(names)) == "stage3.unit12.se.conv2"
    assert all_there("stage{s}.unit{u}.se.conv{n} b.{n}", ["b.7", "stage1.unit1.se.conv1"])
    assert not all_there("stage{s}.unit{u}.se.conv{n} b.{n}", ["b.7"])


def test_every_row_is_read_in_both_directions() -> None:
    """Which the export needs; a row that another hides would be lost."""
    for form in FORMATS:
        for there, here in form.names:
            there = there.replace("-1", "")
            example = there.format(**dict.fromkeys("sun", 3), M="3a")
            renamed = rename(example, form.names)
            assert renamed is not None, there
            assert here.split("{")[0] == renamed[: len(here.split("{")[0])]
    for form in FORMATS:
        if form.name in ("cadene", "timm", "monai"):
            for there, _ in form.names:
                example = there.format(**dict.fromkeys("sun", 3))
                assert rename(rename(example, form.names) or "", reverse(form.names)) == example


def test_num_classes_of_the_weights(tmp_path: Path) -> None:
    path = write(create_model("resnet20", num_classes=7).state_dict(), tmp_path)
    assert open_checkpoint(path).num_classes == 7
    assert create_model("resnet20", weights=path).num_classes == 7
    with pytest.raises(ModelFileError, match=r"fc\.weight \(7, 64\), here \(10, 64\).*head=False"):
        create_model("resnet20", weights=path, num_classes=10)
