"""Deployed networks compute the same function, in float64 against the original."""

import copy
import pickle
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame, SEModule, StdConv2d
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import mobilenet_backbone
from torchvision.models.segmentation.lraspp import _lraspp_mobilenetv3

from senet import SEBatchNorm, SqueezeExcitation, create_model, deploy, insert
from senet.deployment.rewriting.modules import InferenceSE, PointwiseSE
from senet.graph.se_kinds import class_names
from senet.insertion.sites import PLACEMENTS
from tests.helpers import assert_close, randomise
from tests.networks import FAMILIES
from tests.se_by_hand import FORMS, FixedPool, Net
from tests.slow import fast_if

# Largest relative error in float64.
EXACT = 1e-9
PLAIN = ("torch.nn.", "torch.fx.", "senet.deployment.rewriting.modules.")


@torch.no_grad()
def deployed_equal(model: nn.Module, *sizes: tuple[int, ...]) -> nn.Module:
    """Deploy a network on an image of the first size, and compare outputs on images of all sizes."""
    model = model.double().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    new = deploy(model, torch.randn(sizes[0], dtype=torch.float64))
    for size in sizes:
        x = torch.randn(size, dtype=torch.float64)
        assert_close(new(x), model(x), EXACT)
    # The original is unchanged.
    assert [type(module) for module in model.modules()] == kinds
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for module in new.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not isinstance(module, SqueezeExcitation | SEBatchNorm)
        assert not type(module).__name__.startswith("Recalibrated")
    return new


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


@pytest.mark.parametrize("family", ["ours bottleneck", "ours pre-activation basic", "torchvision resnext", "timm d"])
@pytest.mark.parametrize("placement", PLACEMENTS)
@fast_if(lambda family, placement: family == "ours bottleneck" or placement == "standard")
def test_inserted_se(family: str, placement: str) -> None:
    model = insert(randomise(FAMILIES[family]()), placement, reduction=4, init="paper")
    for module in model.modules():
        if isinstance(module, SqueezeExcitation):
            nn.init.normal_(module.fc1.bias)
            nn.init.normal_(module.fc2.bias)
    new = deployed_equal(model, (2, 3, 32, 32), (1, 3, 48, 40))
    sites = sum(isinstance(module, SqueezeExcitation) for module in model.modules())
    assert count(new, InferenceSE) + count(new, PointwiseSE) == sites
    if family == "ours bottleneck":
        assert count(new, PointwiseSE) == (sites if placement == "standard" else 1 if placement == "identity" else 0)
        assert count(new, nn.BatchNorm2d) == 0


@pytest.mark.parametrize(
    ("options", "moved"),
    [
        ({"squeeze": "max"}, False),
        ({"squeeze": "none"}, False),
        ({"gate": "tanh"}, True),
        ({"gate": "relu"}, True),
        ({"gate": "hard_sigmoid"}, True),
        ({"bias": False}, True),
        ({"window": 16}, False),
    ],
    ids=str,
)
def test_every_option_of_the_block(options: dict[str, object], moved: bool) -> None:
    model = randomise(insert(FAMILIES["ours bottleneck"](), reduction=4, init="paper", **options))
    new = deployed_equal(model, (2, 3, 16, 16), (1, 3, 40, 24))
    assert (count(new, PointwiseSE) > 0) == moved
    assert (count(new, InferenceSE) > 0) == (not moved)


def test_a_gain_stays() -> None:
    model = randomise(insert(FAMILIES["ours bottleneck"](), reduction=4))
    assert model.layer1[0].bn3.se.gain_value == 2
    assert count(deployed_equal(model, (2, 3, 16, 16)), PointwiseSE) == 3


def test_constant_gates_are_folded() -> None:
    """The last layer of an identity initialization is zero: each gate is 1, and SE disappears."""
    model = FAMILIES["ours bottleneck"]()
    new = deployed_equal(insert(model, reduction=4), (2, 3, 16, 16))
    assert count(new, InferenceSE) == count(new, PointwiseSE) == 0
    assert len(new.report.of("constant")) == 3
    # Other constants go into the convolution before, or stay as a factor where there is none.
    for placement, scales in (("standard", 0), ("post", 3)):
        model = insert(randomise(FAMILIES["ours bottleneck"]()), placement, reduction=4)
        for module in model.modules():
            if isinstance(module, SqueezeExcitation):
                nn.init.normal_(module.fc2.bias)
        new = deployed_equal(model, (2, 3, 16, 16))
        assert count(new, InferenceSE) == count(new, PointwiseSE) == 0
        assert sum("ChannelScale" in type(module).__name__ for module in new.modules()) == scales


def test_constant_gates_are_folded_in_single_precision() -> None:
    model = insert(randomise(FAMILIES["ours bottleneck"]()), reduction=4)
    for module in model.modules():
        if isinstance(module, SqueezeExcitation):
            nn.init.normal_(module.fc2.bias)
    assert len(deploy(model.float().eval(), torch.randn(2, 3, 16, 16)).report.of("constant")) == 3


class InPlace(nn.Module):
    """A later operation overwrites what SE with gates of 1 returns, or a view of it; its input is read again."""

    def __init__(self, flat: bool) -> None:
        super().__init__()
        self.conv, self.se, self.flat = nn.Conv2d(3, 8, 3), SqueezeExcitation(8, 2), flat
        nn.init.zeros_(self.se.fc2.weight)
        nn.init.constant_(self.se.fc2.bias, 60.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.conv(x)
        scaled = self.se(maps)
        torch.relu_(scaled.flatten(1) if self.flat else scaled)
        return scaled + maps


@pytest.mark.parametrize("flat", [False, True])
def test_gates_of_1_stay_where_their_map_is_changed_in_place(flat: bool) -> None:
    new = deployed_equal(InPlace(flat), (2, 3, 12, 12))
    assert [row.detail for row in new.report.of("constant")] == ["a factor"]


@pytest.mark.parametrize("length", [8, 10])
def test_convolutions_of_single_samples_are_left(length: int) -> None:
    """Batch norm takes the axes (C, L) of such a map for (N, C)."""
    model = nn.Sequential(nn.Conv1d(2, 8, 3), nn.BatchNorm1d(length)).eval()
    new = deploy(randomise(model).double(), torch.randn(2, length + 2, dtype=torch.float64))
    assert [row.action for row in new.report.rows] == ["left"]
    assert "without a batch axis" in new.report.rows[0].detail


def seresnet() -> nn.Module:
    options = {"num_classes": 5, "channels": (16,) * 4, "block_args": {"attn_layer": "se"}}
    return timm.models.resnet.ResNet(timm.models.resnet.Bottleneck, (1, 1, 1, 1), **options)


def legacy_senet(block: str) -> nn.Module:
    return timm.models.senet.SENet(getattr(timm.models.senet, block), (1, 1, 1, 1), 8, 16, num_classes=5)


# By name: a network, and how many SE modules are moved before a convolution, and replaced in place.
SMALL: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "seresnet": (seresnet, 4, 0),
    "legacy_seresnext": (lambda: legacy_senet("SEResNeXtBottleneck"), 4, 0),
    "test_efficientnet": (lambda: timm.create_model("test_efficientnet", num_classes=5), 0, 2),
    "regnety_002": (lambda: timm.create_model("regnety_002", num_classes=5), 0, 13),
    "mobilenetv3_small_050": (lambda: timm.create_model("mobilenetv3_small_050", num_classes=5), 0, 9),
    "torchvision": (lambda: torchvision.models.mobilenet_v3_small(weights=None, num_classes=5), 0, 9),
}


@pytest.mark.parametrize("name", SMALL)
@fast_if(lambda name: name in ("seresnet", "test_efficientnet", "torchvision"))
def test_networks_of_timm(name: str) -> None:
    build, moved, replaced = SMALL[name]
    new = deployed_equal(randomise(build()), (2, 3, 64, 64), (1, 3, 32, 96))
    assert (len(new.report.of("moved")), len(new.report.of("replaced"))) == (moved, replaced)
    assert not new.report.of("left")
    assert count(new, nn.BatchNorm2d) == 0


@pytest.mark.parametrize("form", FORMS)
def test_se_by_hand(form: str) -> None:
    build, kind, name = FORMS[form]
    new = deployed_equal(Net(build()).eval(), (2, 3, 20, 20), (1, 3, 40, 24))
    left = [row.module for row in new.report.of("left") if row.kind != "BatchNorm2d"]
    known = kind == "block" and form != "doubled"
    assert left == ([] if known else [name])
    assert count(new, InferenceSE) == known


def test_a_pool_of_fixed_size_is_left() -> None:
    """At other sizes it is no mean over the whole map."""
    new = deployed_equal(Net(FixedPool()), (2, 3, 32, 32))
    assert [(row.module, row.action) for row in new.report.rows] == [("block", "left")]


def detector() -> nn.Module:
    """Faster R-CNN with a feature pyramid on MobileNetV3, and a narrow head."""
    parts = torchvision.models.detection.faster_rcnn
    backbone = mobilenet_backbone(backbone_name="mobilenet_v3_small", weights=None, fpn=True)
    head, predictor = parts.TwoMLPHead(256 * 49, 16), parts.FastRCNNPredictor(16, 4)
    anchors = AnchorGenerator(((16, 32),) * 3, ((0.5, 1.0),) * 3)
    limits = {"rpn_pre_nms_top_n_test": 50, "rpn_post_nms_top_n_test": 20, "min_size": 64, "max_size": 96}
    return parts.FasterRCNN(backbone, box_head=head, box_predictor=predictor, rpn_anchor_generator=anchors, **limits)


def test_a_detector_takes_images_of_several_sizes() -> None:
    model = randomise(detector()).double().eval()
    images = [torch.rand(3, 64, 80, dtype=torch.float64), torch.rand(3, 50, 70, dtype=torch.float64)]
    new = deploy(model, [images])
    assert len(new.report.of("replaced")) == 9
    with torch.no_grad():
        for batch in ([images], [[torch.rand(3, 90, 40, dtype=torch.float64)]]):
            for actual, expected in zip(new(*batch), model(*batch), strict=True):
                assert len(expected["boxes"])
                for key, value in expected.items():
                    assert_close(actual[key], value, EXACT)


def test_a_segmenter() -> None:
    backbone = torchvision.models.mobilenet_v3_small(weights=None, dilated=True)
    model = randomise(_lraspp_mobilenetv3(backbone, 4)).double().eval()
    x = torch.randn(1, 3, 32, 48, dtype=torch.float64)
    new = deploy(model, x)
    with torch.no_grad():
        assert_close(new(x)["out"], model(x)["out"], EXACT)


def test_float32_is_as_close_to_float64_as_the_original() -> None:
    model = randomise(create_model("se_resnet20", num_classes=5)).eval()
    exact, new, x = copy.deepcopy(model).double(), deploy(model), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        expected = exact(x.double())
        errors = [float((network(x).double() - expected).norm()) for network in (new, model)]
    assert errors[0] <= 2 * errors[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype: torch.dtype) -> None:
    """A mean over 70,000 positions overflows float16 where it is summed in it."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), SqueezeExcitation(4, 2)).eval()
    x = torch.full((1, 3, 300, 300), 3.0)
    with torch.no_grad():
        expected = model(x)
        assert_close(deploy(model.to(dtype), x.to(dtype))(x.to(dtype)).float(), expected, 0.02)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_rounded_weights_are_no_difference(dtype: torch.dtype) -> None:
    """Folded weights are rounded to the precision of the network."""
    model = randomise(create_model("se_resnet20", num_classes=5)).eval().to(dtype)
    x = torch.randn(2, 3, 32, 32).to(dtype)
    new = deploy(model, x)
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(x.double())
        errors = [float((network(x).double() - expected).norm()) for network in (new, model)]
    assert errors[0] <= 3 * errors[1]


def test_computed_weights_are_computed_once() -> None:
    """Weight standardization, before SE, a batch norm, or nothing; one that pads by itself is left."""
    model = nn.Sequential(
        *(ScaledStdConv2d(3, 8, 3, padding=1), nn.ReLU(), ScaledStdConv2d(8, 16, 1), SEModule(16, rd_channels=4)),
        *(StdConv2d(16, 8, 3, groups=2), nn.BatchNorm2d(8), nn.ReLU(), ScaledStdConv2dSame(8, 8, 3, stride=2)),
    )
    new = deployed_equal(randomise(model), (2, 3, 17, 17), (1, 3, 24, 31))
    assert [type(new[place]).__name__ for place in (0, 2, 4, 5, 7)] == [
        *("Conv2d", "PointwiseSE", "Conv2d", "Identity", "ScaledStdConv2dSame")
    ]
    assert [(row.module, row.action) for row in new.report.rows] == [
        *(("0", "removed"), ("2", "removed"), ("3", "moved"), ("4", "removed"), ("5", "folded"))
    ]
    assert deploy(model.float(), torch.randn(2, 3, 17, 17))[0].weight.dtype == torch.float32


def test_a_norm_inside_se_is_folded_in_single_precision() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(3, 16, 3), SEModule(16, rd_channels=4, norm_layer=nn.BatchNorm2d))).eval()
    new = deployed_equal(model, (2, 3, 8, 8))
    assert count(new, InferenceSE) == 1
    assert count(new, nn.BatchNorm2d) == 0
    assert count(deploy(model.float(), torch.randn(2, 3, 8, 8)), nn.BatchNorm2d) == 0


def test_a_network_that_amplifies_rounding_is_deployed() -> None:
    """A large constant that a later layer subtracts: single precision loses 13 bits."""
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), Shift(-10_000.0), nn.ReLU()).eval()
    nn.init.uniform_(model[1].bias, 10_000, 10_002)
    x = torch.randn(2, 3, 8, 8)
    new = deploy(model, x)
    assert count(new, nn.BatchNorm2d) == 0
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(x.double())
        errors = [float((network(x).double() - expected).norm() / expected.norm()) for network in (new, model)]
    assert errors[1] > 1e-4
    assert errors[0] <= 4 * errors[1]


class Shift(nn.Module):
    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.shift


def test_the_result_is_plain() -> None:
    new = deploy(randomise(create_model("se_resnet20", num_classes=5)).eval())
    for module in new.modules():
        names = next(class_names(module))
        assert names.startswith((*PLAIN, "senet.models.")), names
    x = torch.randn(2, 3, 32, 32)
    for other in (copy.deepcopy(new), pickle.loads(pickle.dumps(new))):
        assert torch.equal(other(x), new(x))
        assert str(other.report) == str(new.report)
    assert not any(parameter.requires_grad for parameter in new.parameters())
    assert not new.training
