import re
from pathlib import Path

import pytest
import timm
import timm.data
import torch
import torchvision
from torch import nn

import senet
from senet.models import create_model, list_models, plain_name
from senet.models.libraries import LibrarySpec, is_of_library, library_cfg, names_file
from senet.nn.inserted_se import find_inserted_se


def keys(model: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in model.state_dict().items()}


@pytest.mark.parametrize(
    "name",
    [
        "resnet26d",
        "vgg11_bn",
        "densenet121",
        "mobilenetv2_100",
        "deit_tiny_patch16_224",
        "resnet50.a1_in1k",
        "seresnet18",
    ],
)
def test_names_of_timm(name: str) -> None:
    with torch.device("meta"):
        model = create_model(f"timm/{name}", num_classes=7, in_channels=4)
        expected = timm.create_model(name, num_classes=7, in_chans=4)
    assert type(model) is type(expected)
    assert keys(model) == keys(expected)
    assert [model.num_classes, model.in_channels] == [7, 4]
    assert model.architecture == {"name": f"timm/{name}", "options": {}}
    cfg, theirs = model.pretrained_cfg, expected.pretrained_cfg
    assert cfg["input_size"] == (4, *theirs["input_size"][1:])
    assert {key: cfg[key] for key in ("crop_pct", "interpolation")} == {
        key: theirs[key] for key in ("crop_pct", "interpolation")
    }
    assert cfg["mean"] == (pytest.approx(sum(theirs["mean"]) / 3, abs=1e-6),) * 4


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "densenet121", "googlenet", "inception_v3", "vit_b_16"])
def test_names_of_torchvision(name: str) -> None:
    with torch.device("meta"):
        model = create_model(f"torchvision/{name}", num_classes=7)
    builder = torchvision.models.get_model_builder(name)
    inception = {"aux_logits": False, "init_weights": True} if "g" in name[:1] or "inception" in name else {}
    with torch.device("meta"):
        assert keys(model) == keys(builder(weights=None, num_classes=7, **inception))
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    size = preset.crop_size[0]
    assert timm.data.resolve_model_data_config(model) == {
        "input_size": (3, size, size),
        "interpolation": preset.interpolation.value,
        "mean": tuple(preset.mean),
        "std": tuple(preset.std),
        "crop_pct": size / preset.resize_size[0],
        "crop_mode": "center",
    }


@pytest.mark.parametrize(("name", "size"), [("googlenet", 64), ("inception_v3", 75)])
def test_a_network_gives_logits_in_training(name: str, size: int) -> None:
    """Torchvision's Inceptions give up to three outputs there, and warn that their initialization will change.

    The logits are the first of torchvision's outputs, which are not those of the auxiliary classifiers.
    """
    model = create_model(f"torchvision/{name}", num_classes=3)
    theirs = torchvision.models.get_model(name, weights=None, num_classes=3, init_weights=False)
    found = theirs.load_state_dict(model.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert found.missing_keys
    assert all(key.startswith(("aux1.", "aux2.", "AuxLogits.")) for key in found.missing_keys)
    for module in (*model.modules(), *theirs.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if name == "inception_v3":
        theirs.AuxLogits = nn.Identity()  # takes larger images
    x = torch.randn(2, 3, size, size)
    assert model.training
    logits, outputs = model(x), theirs(x)
    assert logits.shape == (2, 3)
    assert isinstance(outputs, tuple)
    assert torch.equal(logits, outputs.logits)


def test_networks_that_look_at_tensors_while_built_have_a_place_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = create_model("torchvision/regnet_x_400mf", num_classes=3)
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    assert keys(model) == keys(torchvision.models.regnet_x_400mf(num_classes=3))


@pytest.mark.parametrize(
    ("name", "sites"), [("timm/resnet26d", 8), ("torchvision/resnet18", 8), ("torchvision/vgg11_bn", 8)]
)
def test_the_same_network_with_se(name: str, sites: int) -> None:
    assert plain_name(f"se_{name}") == name
    with torch.device("meta"):
        model = create_model(f"se_{name}", num_classes=7, reduction=4, gate="hard_sigmoid")
        plain = create_model(name, num_classes=7)
    found = find_inserted_se(model)
    assert len(found) == sites
    assert {(i.se.gate_name, i.se.gain) for i in found} == {("hard_sigmoid", None)}  # the paper's start
    assert all(i.se.hidden_channels == i.se.channels // 4 for i in found)
    assert keys(senet.remove(model)) == keys(plain)


def test_insert_options_reach_the_network() -> None:
    torch.manual_seed(1)
    plain = create_model("timm/resnet10t", num_classes=3).eval()
    torch.manual_seed(1)
    model = create_model("se_timm/resnet10t", num_classes=3, init="identity", placement="post", stages={3, 4}).eval()
    assert [i.name for i in find_inserted_se(model)] == ["layer2.0", "layer3.0"]
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(x), plain(x))


def test_they_are_no_rows_of_the_catalogue() -> None:
    assert not any(is_of_library(name) for name in list_models())
    assert is_of_library("timm/x")
    assert is_of_library("se_torchvision/x")
    assert not is_of_library("timm")
    assert not is_of_library("runs/timm/model.safetensors")


def test_names_of_libraries_match_globs_with_a_slash() -> None:
    names = list_models("timm/se*")
    assert names == [f"timm/{name}" for name in timm.list_models("se*")]
    assert "timm/seresnet50" in names
    assert list_models("se_timm/resnet5?") == ["se_timm/resnet50"]
    assert list_models("*/vgg11_bn") == ["timm/vgg11_bn", "torchvision/vgg11_bn"]


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("timm/resnet51", {}, ValueError, "unknown network 'timm/resnet51'; did you mean 'timm/resnet51q'"),
        ("se_timm/resnet51", {}, ValueError, "unknown network 'timm/resnet51'; did you mean 'timm/resnet51q'"),
        (
            "timm/resnet50.a1_in2k",
            {},
            ValueError,
            r"resnet50.a1_in2k': Invalid .*Without a tag it is timm/resnet50\.",
        ),
        ("torchvision/resnet51", {}, ValueError, "unknown network 'torchvision/resnet51'; did you mean 'torchvision/r"),
        ("torchvision/fcn_resnet50", {}, ValueError, "unknown network 'torchvision/fcn_resnet50'; did you mean"),
        (
            "torchvision/resnet18",
            {"in_channels": 1},
            ValueError,
            "in_channels=1: torchvision's networks take 3 channels .* timm/resnet18",
        ),
        (
            "torchvision/resnet18",
            {"num_classes": 0},
            ValueError,
            "num_classes=0: torchvision's resnet18 always has a classifier",
        ),
        ("timm/resnet18", {"in_channels": 0}, ValueError, "in_channels must be 1 or more, got 0"),
        ("timm/resnet18", {"num_classes": -1}, ValueError, "num_classes must be 0 or more, got -1"),
        ("timm/resnet18", {"stride_in": "conv2"}, TypeError, "unknown option 'stride_in'"),
        ("timm/resnet18", {"reduction": 4}, ValueError, "'timm/resnet18' is plain; 'se_timm/resnet18' is the network"),
        (
            "se_timm/vit_tiny_patch16_224",
            {},
            ValueError,
            "found no convolutional units in Vis.*name modules.*at=",
        ),
        (
            "se_timm/vgg11_bn",
            {"placement": "pre"},
            ValueError,
            "'pre' is only in residual units .*VGG has none with a module there; use placement=.standard",
        ),
    ],
)
def test_refuses(name: str, options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message), torch.device("meta"):
        create_model(name, **options)


def test_a_spec_checks_its_rate() -> None:
    with pytest.raises(ValueError, match=re.escape("drop_rate must be 0 or more and below 1, got 1.5")):
        LibrarySpec("timm/vgg16_bn", drop_rate=1.5)
    with torch.device("meta"):
        assert create_model("vgg16", drop_rate=0.5).head.drop.p == 0.5
        assert create_model("vgg16").head.drop.p == 0.0
        model = create_model("timm/mobilenetv3_small_050", drop_rate=0.2, drop_path_rate=0.1)
        assert model.drop_rate == 0.2
        assert model.get_submodule("blocks.4.2").drop_path.drop_prob > 0
        with pytest.raises(TypeError, match="timm/vgg11 has no option 'drop_path_rate': "):
            create_model("timm/vgg11", drop_path_rate=0.1)
        with pytest.raises(TypeError, match="unknown option 'drop_rate'"):
            create_model("torchvision/vgg11", drop_rate=0.1)
    assert library_cfg("timm/inception_resnet_v2")["input_size"] == (3, 299, 299)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet20", False),
        ("se_resnext50_32x4d", False),
        ("weights.pth", True),
        ("weights.th", True),
        ("weights.pt", True),
        ("model.safetensors", True),
        ("SE-ResNet-50.caffemodel", True),
        ("timm:seresnet50", True),
        ("runs/resnet20", True),
        ("hf-hub:someone/resnet20", True),
        ("timm/resnet26d", False),
        ("se_torchvision/resnet50", False),
        ("here", True),
        ("folder", False),
    ],
)
def test_files_and_names(name: str, file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").touch()
    (tmp_path / "folder").mkdir()
    assert names_file(name) is file
