from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.data
import torch
import torchvision
from pytorchcv.models import bninception, inceptionresnetv2, mobilenet, shakeshakeresnet_cifar, shufflenet
from torch import nn

import senet
from senet.graph.se_modules import find_se
from senet.insertion.sites import PLACEMENTS
from senet.models import CATALOGUE, ResNetSpec, create_model, list_models, plain_name
from senet.nn.block import SqueezeExcitation
from senet.nn.inserted_se import find_inserted_se
from tests.helpers import randomise
from tests.slow import fast_if

RESIDUAL = [name for name, row in CATALOGUE.items() if isinstance(row.spec, ResNetSpec)]
# Pixels of a side that a network needs where 32, or 16 of CIFAR's, are too few for its pools.
SIZES = {"inception_resnet_v2": 80}
_LARGE = (*(n for n in RESIDUAL if CATALOGUE[n].size == 224 and n != "resnet18"), "vgg16", "inception_resnet_v2")


def size_of(name: str) -> int:
    plain = plain_name(name)
    return SIZES.get(plain, 16 if CATALOGUE[plain].size == 32 else 32)


def marked(names: list[str]) -> list[object]:
    return [pytest.param(n, marks=[pytest.mark.slow] if plain_name(n) in _LARGE else []) for n in names]


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@cache
def count(name: str, **options: Any) -> int:
    with torch.device("meta"):
        return parameters(create_model(name, **options))


def on_meta(build: Callable[[], nn.Module]) -> int:
    with torch.device("meta"):
        return parameters(build())


# What the convolutions of pytorchcv's BN-Inception have in biases: 69 of them, each with a batch norm behind it.
def biases(build: Callable[[], nn.Module]) -> int:
    with torch.device("meta"):
        layers = [m for m in build().modules() if isinstance(m, nn.Conv2d)]
    return sum(layer.bias.numel() for layer in layers if layer.bias is not None)


ELSEWHERE: dict[str, Callable[[], int]] = {
    "vgg16": lambda: on_meta(torchvision.models.vgg16_bn),
    "bn_inception": lambda: on_meta(bninception.bninception) - biases(bninception.bninception),
    "inception_resnet_v2": lambda: on_meta(inceptionresnetv2.inceptionresnetv2),
    "mobilenet": lambda: on_meta(mobilenet.mobilenet_w1),
    "shufflenet": lambda: on_meta(shufflenet.shufflenet_g3_w1),
    "shake_shake_26_2x96d": lambda: on_meta(
        lambda: shakeshakeresnet_cifar.get_shakeshakeresnet_cifar(10, 26, False, first_stage_channels=96)
    ),
}
# The channels of every SE block, by the network's own papers.
BLOCKS = {
    "vgg16": [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6,
    "bn_inception": [256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024],
    "inception_resnet_v2": [320] * 11 + [1088] * 21 + [2080] * 11,
    "mobilenet": [64, 128, 128, 256, 256, *[512] * 6, 1024, 1024],
    "shufflenet": [240 - 24, *[240] * 3, 480 - 240, *[480] * 7, 960 - 480, *[960] * 3],
    "shake_shake_26_2x96d": [96] * 4 + [192] * 4 + [384] * 4,
    "shake_even_29_2x4x64d": [256] * 3 + [512] * 3 + [1024] * 3,
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_other_families_have_the_parameters_of_other_libraries(name: str) -> None:
    assert count(name) == ELSEWHERE[name]()


@pytest.mark.parametrize("name", BLOCKS)
def test_other_families_have_se_where_the_paper_says(name: str) -> None:
    with torch.device("meta"):
        model = create_model(f"se_{name}")
    found = [i.se for i in find_inserted_se(model)]
    assert [se.channels for se in found] == BLOCKS[name]
    hidden = [int(c / 16 + 0.5) for c in BLOCKS[name]]
    assert [se.hidden_channels for se in found] == hidden
    extra = sum(2 * c * h + c + h for c, h in zip(BLOCKS[name], hidden, strict=True))
    assert parameters(model) - count(name) == extra


def test_parameters_by_the_paper() -> None:
    """Table 3, where 1.8 M and 2.4 M are cut off; the authors' release; Gastaldi 2017, of 10 classes."""
    assert (round(count("mobilenet") / 1e6, 1), round(count("se_mobilenet") / 1e6, 1)) == (4.2, 4.7)
    assert round((count("se_mobilenet", bias=False) - count("mobilenet")) / 1e6, 3) == 0.480
    assert (count("shufflenet") // 100_000, count("se_shufflenet", bias=False) // 100_000) == (18, 24)
    assert round((count("se_shufflenet", bias=False) - count("shufflenet")) / 1e6, 3) == 0.611
    assert count("se_bn_inception") == 11_931_622
    assert round(count("shake_shake_26_2x96d") / 1e6, 1) == 26.2
    assert round(count("shake_even_29_2x4x64d", num_classes=10) / 1e6, 1) == 34.4


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("se_resnet50", 28_088_024),
        ("se_resnet101", 49_326_872),
        ("se_resnet152", 66_821_848),
        ("se_resnext50_32x4d", 27_559_896),
        ("se_resnext101_32x4d", 48_955_416),
        ("senet154", 115_088_984),
    ],
)
def test_released_networks_have_their_parameters(name: str, parameters: int) -> None:
    assert count(name) == parameters


@pytest.mark.parametrize(("reduction", "millions"), [(2, 45.68), (4, 35.62), (8, 30.59), (16, 28.07), (32, 26.81)])
def test_table_10(reduction: int, millions: float) -> None:
    assert round(count("se_resnet50", reduction=reduction, bias=False) / 1e6, 2) == millions


# The paper's figures of stage 4 and of the 3x3 placement count the 53,120 running statistics of batch norm.
@pytest.mark.parametrize(
    ("options", "statistics", "millions"),
    [
        ({"stages": 2}, 0, 25.6),
        ({"stages": 3}, 0, 25.7),
        ({"stages": 4}, 53_120, 26.4),
        ({"placement": "conv3x3"}, 53_120, 25.8),
        ({"squeeze": "none"}, 0, 28.1),
    ],
)
def test_tables_13_15_and_16(options: dict[str, object], statistics: int, millions: float) -> None:
    assert round((count("se_resnet50", bias=False, **options) + statistics) / 1e6, 1) == millions


def test_plain_networks_have_the_parameters_of_other_libraries() -> None:
    with torch.device("meta"):
        for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d"):
            assert count(name) == parameters(getattr(torchvision.models, name)())
        assert count("resnext101_32x4d") == parameters(timm.create_model("resnext101_32x4d"))


@pytest.mark.parametrize("name", RESIDUAL)
def test_se_adds_what_the_paper_says(name: str) -> None:
    """(2 / r) times the sum over stages of N_s C_s^2, where r divides C_s (paper section 4)."""
    spec = CATALOGUE[name].spec
    extra = count(CATALOGUE[name].se_name, bias=False) - count(name)
    assert extra == sum(n * 2 * c * c // 16 for n, c in zip(spec.units, spec.channels, strict=True))


@pytest.mark.parametrize(
    ("name", "depth", "width"),
    [
        ("resnet20", 20, 1),
        ("resnet32", 32, 1),
        ("resnet44", 44, 1),
        ("resnet56", 56, 1),
        ("resnet110", 110, 1),
        ("preresnet110", 110, 1),
        ("preresnet164", 164, 1),
        ("wrn_16_8", 16, 8),
    ],
)
def test_depth_counts_the_layers_with_weights(name: str, depth: int, width: int) -> None:
    with torch.device("meta"):
        model = create_model(name)
    kernels = (1, 3) if model.spec.bottleneck else (3,)
    layers = [m for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and "downsample" not in n]
    assert all(layer.kernel_size[0] in kernels for layer in layers)
    # He et al. count convolutions and the classifier; Zagoruyko and Komodakis also the three projections, less one.
    assert len(layers) + 1 + (2 if width > 1 else 0) == depth
    assert model.spec.widths == (16 * width, 32 * width, 64 * width)


@pytest.mark.parametrize("name", marked(list_models()))
@fast_if(lambda name: not name.endswith(("x96d", "x64d", "164")))
def test_every_network_runs_learns_and_round_trips(name: str) -> None:
    model = create_model(name, num_classes=3)
    size = size_of(name)
    x = torch.randn(2, 3, size, size)
    logits = model(x)
    assert logits.shape == (2, 3)
    nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    twin = create_model(name, num_classes=3)
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(twin.eval()(x), model.eval()(x))
    blocks = [m for m in model.modules() if isinstance(m, SqueezeExcitation)]
    expected = BLOCKS.get(plain_name(name)) or range(sum(model.spec.units))
    assert len(blocks) == (0 if name in CATALOGUE else len(expected))


# Of the large ones, those that have SE at other places than a batch norm.
@pytest.mark.parametrize("name", marked([n for n in CATALOGUE if n != "vgg16"]))
@fast_if(lambda name: not name.endswith(("d", "110", "164")))
def test_identity_start_keeps_every_bit_and_a_file_every_tensor(name: str, tmp_path: Path) -> None:
    model = randomise(create_model(name, num_classes=3)).eval()
    x = torch.randn(2, 3, size_of(name), size_of(name))
    with torch.no_grad():
        before, keys = model(x), model.state_dict(keep_vars=True)
        senet.insert(model, init="identity")
        assert torch.equal(model(x), before)
        # Gates that are not 1, in the file.
        for unit in find_se(model):
            nn.init.normal_(unit.expand.weight)
        changed = model(x)
        assert not torch.equal(changed, before)
        senet.save(model, tmp_path / "model.safetensors")
        loaded = senet.load(tmp_path / "model.safetensors")
        assert repr(loaded) == repr(model)
        assert torch.equal(loaded(x), changed)
        assert (loaded.architecture, loaded.pretrained_cfg) == (model.architecture, model.pretrained_cfg)
        assert torch.equal(senet.remove(model)(x), before)
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(keys)
    assert all(after[key] is keys[key] for key in keys)


@pytest.mark.slow
def test_identity_start_keeps_every_bit_of_vgg() -> None:
    """Without a file, which would have half a gigabyte."""
    model = randomise(create_model("vgg16", num_classes=3)).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = model(x)
        assert torch.equal(senet.insert(model)(x), before)
        assert torch.equal(senet.remove(model)(x), before)
    with torch.device("meta"):
        description = senet.model_file.describe(create_model("se_vgg16", num_classes=3))
    assert '"name": "vgg16"' in description


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name not in RESIDUAL])
def test_what_training_and_timm_look_for(name: str) -> None:
    with torch.device("meta"):
        model = create_model(f"se_{name}", num_classes=7)
    row = CATALOGUE[name]
    assert [model.num_classes, model.in_channels] == [7, 3]
    assert model.architecture == {"name": name, "options": {}}
    cfg = timm.data.resolve_model_data_config(model)
    assert cfg["input_size"] == (3, row.size, row.size)
    assert model.pretrained_cfg["num_classes"] == 7
    first, last = (model.get_submodule(model.pretrained_cfg[key]) for key in ("first_conv", "classifier"))
    assert isinstance(first, nn.Conv2d)
    assert first.in_channels == 3
    assert isinstance(last, nn.Linear)
    assert last.out_features == 7
    if name == "inception_resnet_v2":
        assert (cfg["crop_pct"], cfg["interpolation"], cfg["mean"]) == (0.8975, "bicubic", (0.5, 0.5, 0.5))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_placement_is_an_option(placement: str) -> None:
    model = create_model("se_resnet20", placement=placement, stages={3, 4}, reduction=4, gate="tanh", squeeze="max")
    blocks = [m for m in model.modules() if isinstance(m, SqueezeExcitation)]
    assert len(blocks) == 6
    assert {(b.gate_name, b.squeeze, b.gain is None) for b in blocks} == {("tanh", "max", True)}


def test_default_initialization_is_the_papers() -> None:
    assert not any(key.endswith("gain") for key in create_model("se_resnet20").state_dict())
    torch.manual_seed(1)
    plain = create_model("resnet20").eval()
    torch.manual_seed(1)
    model = create_model("se_resnet20", init="identity").eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(x), plain(x))


def test_list_models() -> None:
    names = list_models()
    assert len(names) == 2 * len(CATALOGUE)
    assert len(set(names)) == len(names)
    assert list_models("se_resnet1*") == ["se_resnet18", "se_resnet101", "se_resnet152", "se_resnet110"]
    assert list_models("nothing*") == []
    assert "senet154" in list_models("se*")
    assert plain_name("senet154") == "senet154_plain"


def test_pretrained_cfg_is_timms() -> None:
    model = create_model("se_resnet20", num_classes=4)
    assert timm.data.resolve_model_data_config(model) == {
        "input_size": (3, 32, 32),
        "interpolation": "bilinear",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop_pct": 1.0,
        "crop_mode": "center",
    }
    assert model.pretrained_cfg["num_classes"] == 4
    assert len(create_model("se_resnet20", in_channels=1).pretrained_cfg["mean"]) == 1
    with torch.device("meta"):
        large = create_model("senet154")
    for key in ("first_conv", "classifier"):
        assert isinstance(large.get_submodule(large.pretrained_cfg[key]), nn.Conv2d | nn.Linear)


def test_weights_of_a_file(tmp_path: object) -> None:
    model = create_model("se_resnet20")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    loaded = create_model("se_resnet20", weights=tmp_path / "weights.pth")
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    with pytest.raises(ValueError, match="does not fit the network: 36 unexpected"):
        create_model("resnet20", weights=tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("se_resnet5", {}, ValueError, "unknown network 'se_resnet5'; did you mean 'se_resnet56'"),
        (
            "efficientnet_b0",
            {},
            ValueError,
            "unknown network 'efficientnet_b0'; did you mean 'timm/efficientnet_b0' or 'torchvision/efficientnet_b0'?",
        ),
        ("resnet20", {"in_chans": 1}, TypeError, "no option 'in_chans': it is in_channels= here"),
        ("resnet20", {"pretrained": True}, TypeError, "no option 'pretrained': weights= takes a file, 'timm:NAME'"),
        ("timm/resnet18", {"pretrained": True}, TypeError, "no option 'pretrained': give weights=\"timm:resnet18\"$"),
        (
            "se_torchvision/resnet18",
            {"pretrained": True},
            TypeError,
            'no option \'pretrained\': give weights="torchvision:resnet18" missing="gates"$',
        ),
        ("se_resnet20", {"redaction": 8}, TypeError, "unknown option 'redaction'; did you mean 'reduction'"),
        ("resnet20", {"placement": "pre"}, ValueError, "placement= is an option of SE, but 'resnet20' is plain; 'se_"),
        ("resnet20", {"out_indices": (1,)}, ValueError, "out_indices requires features_only=True"),
        (
            "resnet20",
            {"features_only": True, "out_indices": (4,)},
            ValueError,
            r"among 0 to 3, or negative from the last, got \(4,\)",
        ),
        ("resnet20", {"stride_in": "conv2"}, ValueError, "stride_in='conv2' is for bottlenecks"),
        ("vgg16", {"stride_in": "conv2"}, TypeError, "unknown option 'stride_in'"),
        ("vgg16", {"drop_rat": 0.5}, TypeError, "unknown option 'drop_rat'; did you mean 'drop_rate'"),
        ("shake_shake_26_2x96d", {"backwards": "even"}, TypeError, "did you mean 'backward'"),
        ("shufflenet", {"drop_rate": 2}, ValueError, "drop_rate must be 0 or more and below 1, got 2"),
        ("se_mobilenet", {"placement": "conv3x3"}, ValueError, "'conv3x3' is only in residual units"),
        ("se_resnet20", {"stages": 7}, ValueError, r"invalid stages=\[7\]: .* \[2, 3, 4\]"),
    ],
)
def test_refuses(name: str, options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        create_model(name, **options)


@pytest.mark.parametrize("option", ["num_classes", "in_channels"])
def test_numbers_of_another_type_are_refused(option: str) -> None:
    with pytest.raises(TypeError, match=f"{option} must be an integer, got 'abc'"):
        create_model("resnet20", **{option: "abc"})
    with pytest.raises(TypeError, match="name must be the name of a network, such as 'se_resnet50', got 3"):
        create_model(3)
