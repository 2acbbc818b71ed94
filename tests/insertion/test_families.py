import copy
from collections.abc import Callable

import pytest
import timm
import timm.models.vgg
import torch
import torchvision
from torch import Tensor, nn

from senet import create_model, find_sites, insert
from senet.insertion.sites import PLACEMENTS
from senet.models import ShakeShake, ShakeShakeSpec, ShuffleNet, ShuffleNetSpec
from senet.nn.inserted_se import find_inserted_se
from tests.helpers import assert_close, randomise
from tests.slow import fast_if

VGG = {"11": [1, 1, 2, 2, 2], "13": [2] * 5, "16": [2, 2, 3, 3, 3], "19": [2, 2, 4, 4, 4]}
MOBILE = {"_100": 1.0, "_100h": 1.0, "_125": 1.25}


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return create_model(name)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
@pytest.mark.parametrize("kind", ["11", "11_bn", "13_bn", "16", "16_bn", "19_bn"])
def test_vgg_has_se_after_the_relu_of_each_convolution(library: str, kind: str) -> None:
    model = on_meta(f"{library}/vgg{kind}")
    sites = find_sites(model)
    assert [s.name for s in sites] == [
        f"features.{n}" for n, m in model.features.named_children() if type(m) is nn.ReLU
    ]
    units = VGG[kind.partition("_")[0]]
    assert [s.stage for s in sites] == [stage for stage, count in enumerate(units, 1) for _ in range(count)]
    widths = (64, 128, 256, 512, 512)
    assert [s.channels for s in sites] == [
        width for width, count in zip(widths, units, strict=True) for _ in range(count)
    ]
    assert {s.how for s in sites} == {"output"}


@pytest.mark.parametrize(("name", "width"), MOBILE.items())
def test_mobilenet_has_se_after_each_pointwise_convolution(name: str, width: float) -> None:
    sites = find_sites(on_meta(f"timm/mobilenetv1{name}"))
    widths = [64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    assert [s.channels for s in sites] == [int(width * c) for c in widths]
    assert [s.stage for s in sites] == [1, 2, 2, 3, 3, *[4] * 6, 5, 5]
    assert (sites[1].name, sites[1].how, sites[1].unit) == ("blocks.1.0.bn2", "output", "blocks.1.0")


@pytest.mark.parametrize("name", ["mobilenetv2_100", "mnasnet_100", "densenet121"])
def test_other_networks_of_these_classes_are_not_known(name: str) -> None:
    rules = {site.rule for site in find_sites(on_meta(f"timm/{name}"))}
    assert rules
    assert "table" not in rules


@pytest.mark.parametrize(
    ("name", "channels", "stages"),
    [
        ("torchvision/googlenet", [256, 480, 512, 512, 512, 528, 832, 832, 1024], [3] * 2 + [4] * 5 + [5] * 2),
        ("torchvision/inception_v3", [256, 288, 288, *[768] * 5, 1280, 2048, 2048], [3] * 3 + [4] * 5 + [5] * 3),
        ("timm/inception_v3", [256, 288, 288, *[768] * 5, 1280, 2048, 2048], [3] * 3 + [4] * 5 + [5] * 3),
        ("timm/inception_v4", [*[384] * 4, *[1024] * 8, *[1536] * 4], [3] * 4 + [4] * 8 + [5] * 4),
        ("timm/inception_resnet_v2", [320] * 11 + [1088] * 21 + [2080] * 11, [3] * 11 + [4] * 21 + [5] * 11),
        ("bn_inception", [256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024], [3] * 2 + [4] * 5 + [5] * 3),
        ("shufflenet", [216, *[240] * 4, *[480] * 8, *[960] * 3], [3] * 4 + [4] * 8 + [5] * 4),
        ("shake_shake_26_2x96d", [96] * 4 + [192] * 4 + [384] * 4, [2] * 4 + [3] * 4 + [4] * 4),
    ],
)
@fast_if(lambda name: name not in ("torchvision/inception_v3", "timm/inception_v4", "timm/inception_resnet_v2"))
def test_channels_and_stages_are_those_of_a_run(name: str, channels: list[int], stages: list[int]) -> None:
    sites = find_sites(on_meta(name))
    assert [s.channels for s in sites] == channels
    assert [s.stage for s in sites] == stages


@pytest.mark.parametrize("placement", [p for p in PLACEMENTS if p != "standard"])
def test_other_placements_are_only_in_residual_units(placement: str) -> None:
    message = rf"placement '{placement}' is only in residual units relu\(branch\(x\) \+ skip\(x\)\), and ShuffleNet has"
    with pytest.raises(ValueError, match=message):
        find_sites(on_meta("shufflenet"), placement)
    assert find_sites(on_meta("shufflenet"), "post", at="relu", example=torch.zeros(1, 3, 64, 64, device="meta"))


def test_at_and_stages_pick_among_them() -> None:
    model = on_meta("timm/mobilenetv1_100")
    names = [f"blocks.{block}.bn2" for block in ("1.0", "1.1", "4.0", "4.1")]
    assert [s.name for s in find_sites(model, at=["blocks.1.*", "blocks.4.?"])] == names
    assert [s.name for s in find_sites(model, stages={2, 5})] == names
    # With modules that are no site, and on an example of one's own.
    sites = find_sites(model, at=["bn1", "blocks.1.0"], example=torch.zeros(1, 3, 64, 64, device="meta"))
    assert [(s.name, s.channels, s.stage) for s in sites] == [("blocks.1.0.bn2", 128, 2), ("bn1", 32, 1)]
    with pytest.raises(ValueError, match=r"invalid stages=\[6\]: this network has the stages \[1, 2, 3, 4, 5\]"):
        find_sites(model, stages=6)


def test_a_network_around_them() -> None:
    vgg = on_meta("torchvision/vgg11")
    assert [s.name for s in find_sites(nn.Sequential(vgg))] == [f"0.{s.name}" for s in find_sites(vgg)]
    pair = nn.ModuleDict({"left": vgg, "right": on_meta("resnet20")})
    with pytest.raises(ValueError, match="ModuleDict did not run on an image .*give example="):
        find_sites(pair)
    assert len(find_sites(pair, at="right.*")) == 9  # which say themselves what they are


# --- the function, written out ---


def by_hand(model: nn.Module) -> tuple[nn.Module, list[nn.Module]]:
    """The plain network, and SE with weights that matter at each site of a copy, which the model becomes."""
    plain = copy.deepcopy(model)
    insert(model, reduction=4, init="paper")
    found: list[nn.Module] = [i.se for i in find_inserted_se(model)]
    randomise(nn.ModuleList(found))
    return plain, found


def check(model: nn.Module, forward: Callable[[nn.Module, list[nn.Module], Tensor], Tensor], x: Tensor) -> None:
    model = randomise(model).double().eval()
    plain, blocks = by_hand(model)
    assert_close(model(x), forward(plain, blocks, x))
    assert not torch.allclose(model(x), plain(x))


def test_vgg_by_hand() -> None:
    def forward(plain: nn.Module, blocks: list[nn.Module], x: Tensor) -> Tensor:
        rest = iter(blocks)
        for layer in plain.features:
            x = next(rest)(layer(x)) if type(layer) is nn.ReLU else layer(x)
        return plain.forward_head(x)

    layers = [8, "M", 16, 16, "M"]
    model = timm.models.vgg.VGG(layers, num_classes=5, norm_layer=nn.BatchNorm2d, mlp_ratio=0.01)
    check(model, forward, torch.randn(2, 3, 32, 32, dtype=torch.float64))


def test_mobilenet_by_hand() -> None:
    def forward(plain: nn.Module, blocks: list[nn.Module], x: Tensor) -> Tensor:
        rest = iter(blocks)
        x = plain.bn1(plain.conv_stem(x))
        for stage in plain.blocks:
            for block in stage:
                x = block.bn1(block.conv_dw(x))
                x = next(rest)(block.bn2(block.conv_pw(x)))
        return plain.forward_head(plain.bn2(plain.conv_head(x)))

    check(create_model("mobilenet", num_classes=5), forward, torch.randn(2, 3, 64, 64, dtype=torch.float64))


def test_bn_inception_by_hand() -> None:
    def forward(plain: nn.Module, blocks: list[nn.Module], x: Tensor) -> Tensor:
        x = plain.pool2(plain.conv2(plain.conv2_reduce(plain.pool1(plain.conv1(x)))))
        for name, se in zip(plain.stages, blocks, strict=True):
            x = se(getattr(plain, name)(x))
        return plain.forward_head(x)

    check(create_model("bn_inception", num_classes=5), forward, torch.randn(2, 3, 64, 64, dtype=torch.float64))


@pytest.mark.slow
def test_inception_resnet_by_hand() -> None:
    """Block by block: 43 of them would amplify what rounding there is."""
    model = randomise(timm.create_model("inception_resnet_v2")).double().eval()
    plain, blocks = by_hand(model)
    rest = iter(blocks)
    with torch.no_grad():
        for name in ("mixed_5b", "repeat", "mixed_6a", "repeat_1", "mixed_7a", "repeat_2", "block8"):
            with_se, without = getattr(model, name), getattr(plain, name)
            several = name.startswith("repeat")
            for one, other in zip(with_se if several else [with_se], without if several else [without], strict=True):
                x = torch.randn(1, other.branch0.conv.in_channels if name[:5] != "mixed" else CHANNELS[name], 9, 9)
                x, se = x.double(), next(rest)
                if name.startswith("mixed"):
                    expected = se(other(x))
                else:
                    branch = torch.cat([other.get_submodule(b)(x) for b in BRANCHES if hasattr(other, b)], 1)
                    expected = se(other.conv2d(branch)) * other.scale + x
                    expected = expected if name == "block8" else torch.relu(expected)
                assert_close(one(x), expected)
    assert next(rest, None) is None


CHANNELS = {"mixed_5b": 192, "mixed_6a": 320, "mixed_7a": 1088}
BRANCHES = ("branch0", "branch1", "branch2")


def test_shufflenet_by_hand() -> None:
    def forward(plain: nn.Module, blocks: list[nn.Module], x: Tensor) -> Tensor:
        rest = iter(blocks)
        x = plain.maxpool(plain.relu(plain.bn1(plain.conv1(x))))
        for stage in (plain.layer1, plain.layer2):
            for unit in stage:
                y = unit.shuffle(torch.relu(unit.bn1(unit.conv1(x))))
                y = next(rest)(unit.bn3(unit.conv3(unit.bn2(unit.conv2(y)))))
                x = torch.relu(y + x if unit.pool is None else torch.cat((y, unit.pool(x)), 1))
        return plain.forward_head(x)

    spec = ShuffleNetSpec(units=(2, 2), channels=(48, 96), stem_channels=24)
    check(ShuffleNet(spec, num_classes=5), forward, torch.randn(2, 3, 32, 32, dtype=torch.float64))


@pytest.mark.parametrize("preactivation", [True, False])
def test_shake_shake_by_hand(preactivation: bool) -> None:
    def forward(plain: nn.Module, blocks: list[nn.Module], x: Tensor) -> Tensor:
        rest = iter(blocks)
        x = plain.relu(plain.bn1(plain.conv1(x)))
        for stage in (plain.layer1, plain.layer2):
            for unit in stage:
                y = torch.relu(x) if preactivation else x
                mixed = next(rest)((unit.branch1(y) + unit.branch2(y)) / 2)
                x = mixed + (x if unit.downsample is None else unit.downsample(y))
                x = x if preactivation else torch.relu(x)
        return plain.forward_head(plain.last_relu(x))

    spec = ShakeShakeSpec(units=(2, 2), channels=(8, 16), widths=(8, 16), preactivation=preactivation)
    check(ShakeShake(spec, num_classes=5), forward, torch.randn(2, 3, 16, 16, dtype=torch.float64))


def test_subclasses_are_of_the_family() -> None:
    class Mine(torchvision.models.VGG):
        pass

    with torch.device("meta"):
        model = Mine(torchvision.models.vgg11().features)
    assert len(find_sites(model)) == 8
