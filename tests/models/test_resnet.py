import copy
import re

import pytest
import timm
import timm.models
import timm.models.resnet
import timm.models.senet
import torch
import torchvision.models.resnet
from pytorchcv.models import preresnet_cifar, resnet_cifar, seresnet_cifar, wrn_cifar
from timm.models import group_parameters
from torch import nn

from senet import insert
from senet.models import ResNet, ResNetSpec, create_model
from tests.helpers import assert_close, randomise
from tests.networks import FAMILIES

TV = torchvision.models.resnet
WIDTHS, WIDE = (64, 128, 256, 512), (256, 512, 1024, 2048)


def load_in_order(model: nn.Module, theirs: nn.Module) -> None:
    """Weights of a network that has the same modules in the same order, under other names."""
    state = {key: value for key, value in model.state_dict().items() if "tracked" not in key}
    values = [value for key, value in theirs.state_dict().items() if "tracked" not in key]
    assert [v.numel() for v in state.values()] == [v.numel() for v in values]
    model.load_state_dict({key: v.view_as(state[key]) for key, v in zip(state, values, strict=True)}, strict=False)


def assert_same_logits(ours: nn.Module, theirs: nn.Module, size: int) -> None:
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        assert_close(ours.double().eval()(x), theirs.double().eval()(x), 1e-9)


@pytest.mark.parametrize(
    ("theirs", "spec"),
    [
        (
            lambda: TV.ResNet(TV.BasicBlock, [2, 1, 1, 1]),
            {"bottleneck": False, "channels": WIDTHS, "units": (2, 1, 1, 1)},
        ),
        (lambda: TV.ResNet(TV.Bottleneck, [1, 2, 1, 1]), {"stride_in": "conv2", "units": (1, 2, 1, 1)}),
        (
            lambda: TV.ResNet(TV.Bottleneck, [1, 1, 1, 1], groups=32, width_per_group=4),
            {"stride_in": "conv2", "widths": (128, 256, 512, 1024), "groups": 32},
        ),
    ],
    ids=["basic", "bottleneck", "resnext"],
)
def test_is_torchvisions_network(theirs: object, spec: dict[str, object]) -> None:
    """With the stride in the 3x3 convolution and a padded pool: the same keys, the same logits."""
    theirs = randomise(theirs())
    common = {"units": (1, 1, 1, 1), "channels": WIDE, "widths": WIDTHS, "bottleneck": True, "pool": "pad"}
    ours = ResNet(ResNetSpec(**{**common, **spec}))
    ours.load_state_dict(theirs.state_dict())
    assert_same_logits(ours, theirs, 64)


def released(theirs: nn.Module) -> dict[str, torch.Tensor]:
    """Keys of timm's `legacy_*` networks, which are the authors' release, by our names."""
    renames = [
        (r"layer0\.(conv1|bn1)", r"\1"),
        (r"se_module", "SE"),
        (r"last_linear", "fc"),
    ]
    deep = {
        "conv1": "conv1.0",
        "bn1": "conv1.1",
        "conv2": "conv1.3",
        "bn2": "conv1.4",
        "conv3": "conv1.6",
        "bn3": "bn1",
    }
    is_deep = "layer0.conv3.weight" in theirs.state_dict()
    state = {}
    for key, value in theirs.state_dict().items():
        if is_deep:
            key = re.sub(r"^layer0\.(\w+)", lambda match: deep[match[1]], key)
        for pattern, name in renames:
            key = re.sub(pattern, name, key)
        state[key.replace("SE", "bn3.se")] = value
    return state


@pytest.mark.parametrize(
    ("name", "block", "options"),
    [
        ("se_resnet50", "SEResNetBottleneck", {"groups": 1, "inplanes": 64, "downsample_kernel_size": 1}),
        ("se_resnext50_32x4d", "SEResNeXtBottleneck", {"groups": 32, "inplanes": 64, "downsample_kernel_size": 1}),
        ("senet154", "SEBottleneck", {"groups": 64}),
    ],
)
def test_is_the_authors_release(name: str, block: str, options: dict[str, object]) -> None:
    """The released architectures with fewer units, against timm's copies; 65 pixels distinguish the kinds of pool."""
    kind = getattr(timm.models.senet, block)
    if name == "senet154":
        options = {**options, "downsample_kernel_size": 3, "downsample_padding": 1, "inplanes": 128, "input_3x3": True}
    else:
        options = {**options, "downsample_padding": 0}
    theirs = randomise(timm.models.senet.SENet(kind, (1, 2, 1, 1), reduction=16, **options))
    with torch.device("meta"):
        spec = create_model(name).spec
    few = ResNetSpec(**{**vars(spec), "units": (1, 2, 1, 1)})
    ours = insert(ResNet(few), init="paper")
    ours.load_state_dict(released(theirs))
    assert_same_logits(ours, theirs, 65)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "legacy"),
    [
        (n, "legacy_" + n.replace("se_", "se"))
        for n in ("se_resnet101", "se_resnet152", "se_resnext101_32x4d", "senet154")
    ],
)
def test_is_the_authors_release_whole(name: str, legacy: str) -> None:
    theirs = randomise(timm.create_model(legacy)).double()
    with torch.no_grad():  # statistics that fit the weights, or 150 layers amplify rounding errors
        for _ in range(20):
            theirs(torch.randn(4, 3, 64, 64, dtype=torch.float64))
    ours = create_model(name).double()
    ours.load_state_dict(released(theirs))
    assert_same_logits(ours, theirs, 64)


def cifar(name: str, **options: object) -> nn.Module:
    return create_model(name, shortcut="projection", **options)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (lambda: resnet_cifar.get_resnet_cifar(10, 20, False), lambda: cifar("resnet20")),
        (lambda: seresnet_cifar.get_seresnet_cifar(10, 20, False), lambda: cifar("se_resnet20")),
        (lambda: preresnet_cifar.get_preresnet_cifar(10, 110, False), lambda: cifar("preresnet110")),
        (lambda: preresnet_cifar.get_preresnet_cifar(10, 164, True), lambda: cifar("preresnet164", stride_in="conv2")),
        (lambda: wrn_cifar.get_wrn_cifar(10, 16, 8), lambda: cifar("wrn_16_8")),
    ],
    ids=["resnet20", "se_resnet20", "preresnet110", "preresnet164", "wrn_16_8"],
)
def test_is_pytorchcvs_network(theirs: object, ours: object) -> None:
    theirs, ours = randomise(theirs()), ours()
    load_in_order(ours, theirs)
    assert_same_logits(ours, theirs, 32)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name.startswith("ours")])
def test_what_timms_users_expect(family: str) -> None:
    model = randomise(FAMILIES[family]()).eval()
    x = torch.randn(2, 3, 32, 32)
    features = model.forward_features(x)
    assert features.shape[1] == model.num_features
    assert torch.equal(model.forward_head(features), model(x))
    pooled = model.forward_head(features, pre_logits=True)
    assert torch.equal(model.get_classifier()(pooled), model(x))
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    assert model.num_classes == 7
    model.reset_classifier(0)
    assert torch.equal(model(x), pooled)


def test_reset_classifier_keeps_dtype_and_mode_and_forgets_names() -> None:
    model = create_model("resnet20").double().eval()
    model.pretrained_cfg["label_names"] = list("abcdefghij")
    model.reset_classifier(3, global_pool="avg")
    assert model.fc.weight.dtype == torch.float64
    assert not model.fc.training
    assert (model.pretrained_cfg["num_classes"], model.pretrained_cfg["label_names"]) == (3, None)


@pytest.mark.parametrize("name", ["se_resnet20", "se_preresnet164"])
def test_features_only(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name).eval()
    torch.manual_seed(0)
    features = create_model(name, features_only=True, out_indices=(1, 3)).eval()
    assert features.feature_info.channels() == [
        model.layer1[-1](torch.zeros(1, model.spec.channels[0], 8, 8)).shape[1],
        model.num_features,
    ]
    assert features.feature_info.reduction() == [1, 4]
    x = torch.randn(2, 3, 32, 32)
    maps = features(x)
    expected = {}
    for layer in ("layer1", "layer3"):
        getattr(model, layer).register_forward_hook(lambda m, a, output, layer=layer: expected.update({layer: output}))
    model(x)
    assert torch.equal(maps[0], expected["layer1"])
    assert torch.equal(maps[1], expected["layer3"])


@pytest.mark.parametrize(
    ("out_indices", "channels"),
    [
        ((-2, -1), [32, 64]),
        (2, [32, 64]),
        ((0, -1), [16, 64]),
        (1, [64]),
        (4, [16, 16, 32, 64]),
        ((-4, -2), [16, 32]),
        ((1,), [16]),
    ],
)
def test_features_only_counts_from_the_end_as_timm_does(out_indices: object, channels: list[int]) -> None:
    """The maps that timm's wrapper takes of the same network, and timm's builder of its own."""
    builders = {
        "resnet20": lambda: timm.models.FeatureListNet(create_model("resnet20"), out_indices=out_indices),
        "timm/resnet10t": lambda: timm.create_model("resnet10t", features_only=True, out_indices=out_indices),
    }
    for name, build in builders.items():
        torch.manual_seed(0)
        ours = create_model(name, features_only=True, out_indices=out_indices).eval()
        torch.manual_seed(0)
        theirs = build().eval()
        assert ours.feature_info.channels() == theirs.feature_info.channels()
        assert ours.feature_info.channels() == channels or name != "resnet20"
        x = torch.randn(1, 3, 32, 32)
        for maps, expected in zip(ours(x), theirs(x), strict=True):
            assert torch.equal(maps, expected)


def test_features_only_says_the_channels_of_all_maps() -> None:
    with torch.device("meta"):
        model = create_model("se_resnet50", features_only=True)
        maps = model(torch.randn(1, 3, 64, 64))
    assert model.feature_info.channels() == [m.shape[1] for m in maps] == [64, 256, 512, 1024, 2048]
    assert model.feature_info.reduction() == [64 // m.shape[2] for m in maps] == [2, 4, 8, 16, 32]


@pytest.mark.parametrize("placement", ["standard", "pre", "identity"])
def test_gradient_checkpointing_changes_no_gradient(placement: str) -> None:
    model = insert(randomise(FAMILIES["ours basic"]()), placement, init="paper").double().eval()
    other = copy.deepcopy(model)
    model.set_grad_checkpointing()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    for network in (model, other):
        network(x).square().sum().backward()
    for parameter, twin in zip(model.parameters(), other.parameters(), strict=True):
        assert_close(parameter.grad, twin.grad)


@pytest.mark.parametrize("name", ["se_resnet20", "se_preresnet110", "senet154"])
def test_group_matcher_covers_every_parameter(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    names = {key for key, _ in model.named_parameters()}
    for coarse, layers in ((True, len(model.stage_names)), (False, sum(model.spec.units))):
        groups = group_parameters(model, model.group_matcher(coarse=coarse))
        assert {key for keys in groups.values() for key in keys} == names
        assert len(groups) >= layers + 2  # the stem, and the head


def test_drop_path_rises_linearly() -> None:
    model = create_model("resnet20", drop_path_rate=0.4)
    rates = [getattr(m, "drop_prob", 0.0) for name, m in model.named_modules() if name.endswith(".drop_path")]
    assert rates == pytest.approx([0.4 * i / 8 for i in range(9)])


def test_he_initialization() -> None:
    model = create_model("resnet50")
    weight = model.layer3[1].conv2.weight
    assert float(weight.detach().std()) == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert not model.fc.bias.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem": "conv5"}, "unknown stem 'conv5'; did you mean"),
        ({"pool": "maxx"}, "unknown pool 'maxx'.*ceil, pad, none"),
        ({"stride_in": "conv4"}, "unknown stride_in 'conv4'"),
        ({"shortcut": "padd"}, "unknown shortcut 'padd'; did you mean 'pad'"),
        ({"projection": 5}, "projection must be 1 or 3.*got 5"),
        ({"drop_rate": 1.0}, "drop_rate must be 0 or more and below 1, got 1.0"),
        ({"drop_path_rate": -0.1}, "drop_path_rate must be 0 or more and below 1, got -0.1"),
        ({"bottleneck": False, "stride_in": "conv2"}, "stride_in='conv2' is for bottlenecks"),
    ],
)
def test_spec_refuses(options: dict[str, object], message: str) -> None:
    common = {"units": (1, 1), "channels": (16, 32), "widths": (8, 16), "bottleneck": True}
    with pytest.raises(ValueError, match=message):
        ResNetSpec(**{**common, **options})


def test_network_refuses() -> None:
    model = FAMILIES["ours basic"]()
    with pytest.raises(ValueError, match="in_channels must be 1 or more, got 0; 3 for RGB"):
        ResNet(model.spec, in_channels=0)
    with pytest.raises(ValueError, match="num_classes must be 0 or more, got -1"):
        model.reset_classifier(-1)
    with pytest.raises(ValueError, match="unknown global_pool 'max'.*forward_features"):
        model.reset_classifier(3, global_pool="max")
