from typing import Any

import pytest
import torch
from pytorchcv.models.resnext_cifar import CIFARResNeXt
from pytorchcv.models.shakeshakeresnet_cifar import CIFARShakeShakeResNet, get_shakeshakeresnet_cifar
from torch import Tensor, nn
from torch.nn import functional as F

from senet import SqueezeExcitation, insert
from senet.models import shake_mix
from senet.models.shake_shake import (
    SHAKE_EVEN_29_2X4X64D,
    SHAKE_SHAKE_26_2X96D,
    ShakeShake,
    ShakeShakeSpec,
    ShiftedShortcut,
)
from tests.helpers import assert_close, randomise
from tests.models.test_resnet import assert_same_logits, load_in_order

SMALL = {"units": (1, 1, 1), "channels": (16, 24, 32), "widths": (16, 24, 32), "stem_channels": 8}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_has_the_parameters_of_its_paper() -> None:
    """26.2 M, and of CIFAR-100's with 10 classes 34.4 M, as ResNeXt-29 8x64d (Gastaldi 2017, section 2.3)."""
    with torch.device("meta"):
        theirs = get_shakeshakeresnet_cifar(10, 26, False, 96)
        assert parameters(ShakeShake(SHAKE_SHAKE_26_2X96D)) == parameters(theirs) == 26_192_922
        assert round(parameters(ShakeShake(SHAKE_EVEN_29_2X4X64D)) / 1e6, 1) == 34.4
        assert parameters(ShakeShake(SHAKE_EVEN_29_2X4X64D, num_classes=100)) == 34_529_700


def test_depth_and_widths_are_in_the_names() -> None:
    for spec, per_unit, width in ((SHAKE_SHAKE_26_2X96D, 2, 96), (SHAKE_EVEN_29_2X4X64D, 3, 4 * 64)):
        with torch.device("meta"):
            model = ShakeShake(spec)
        branch = [m for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and ".branch1." in n]
        assert len(branch) + 2 == (26 if per_unit == 2 else 29)
        inner = [m for m in branch if m.kernel_size == (3, 3)]
        assert (inner[0].out_channels, inner[0].groups) == (width, spec.groups)
        assert [m.stride[0] for m in inner].count(2) == 2


@pytest.mark.parametrize("bottleneck", [False, True])
def test_without_preactivation_is_pytorchcvs_network(bottleneck: bool) -> None:
    channels, units = (16, 32, 64), (2, 1, 2)
    theirs = randomise(CIFARShakeShakeResNet([[c] * n for c, n in zip(channels, units, strict=True)], 16, bottleneck))
    widths = tuple(c // 4 for c in channels) if bottleneck else channels
    spec = ShakeShakeSpec(
        units=units, channels=channels, widths=widths, bottleneck=bottleneck, preactivation=False, stem_channels=16
    )
    ours = ShakeShake(spec)
    load_in_order(ours, theirs)
    assert_same_logits(ours, theirs, 32)


def test_is_pytorchcvs_network_where_no_skip_is_x_itself() -> None:
    """Theirs passes on relu(x) where ours, as its author's, passes on x; one unit for each stage has no such skip."""
    theirs = randomise(CIFARShakeShakeResNet([[16], [24], [32]], 8, False))
    ours = ShakeShake(ShakeShakeSpec(**SMALL))
    load_in_order(ours, theirs)
    assert_same_logits(ours, theirs, 32)


def by_hand(model: ShakeShake, x: Tensor) -> Tensor:
    """A network with pre-activation in evaluation, as its author's code has it: a ReLU before each branch."""

    def branch(layers: nn.Module, x: Tensor) -> Tensor:
        return layers.bn2(layers.conv2(torch.relu(layers.bn1(layers.conv1(torch.relu(x))))))

    def skip(shortcut: nn.Module, x: Tensor, stride: int) -> Tensor:
        x = torch.relu(x)
        shifted = torch.zeros_like(x)
        shifted[:, :, 1:, 1:] = x[:, :, :-1, :-1]
        one, two = (F.avg_pool2d(y, 1, stride) for y in (x, shifted))
        weights = (shortcut.conv1.weight, shortcut.conv2.weight)
        return shortcut.bn(torch.cat((F.conv2d(one, weights[0]), F.conv2d(two, weights[1])), 1))

    x = model.bn1(model.conv1(x))
    for name in model.stage_names:
        for number, unit in enumerate(getattr(model, name)):
            stride = 2 if name != "layer1" and number == 0 else 1
            mixed = 0.5 * branch(unit.branch1, x) + 0.5 * branch(unit.branch2, x)
            x = mixed + (x if unit.downsample is None else skip(unit.downsample, x, stride))
    return model.fc(torch.relu(x).mean((2, 3)))


def test_with_preactivation_passes_x_itself_on() -> None:
    model = randomise(ShakeShake(ShakeShakeSpec(**{**SMALL, "units": (2, 3, 1)}))).double().eval()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert_close(model(x), by_hand(model, x))


def as_resnext(unit: Any, theirs: Any) -> None:
    """Two branches of g groups, of which the mean is taken, as one of 2 g: the last batch norms fold into one."""
    branches = (unit.branch1, unit.branch2)
    for ours, name in (("1", "conv1"), ("2", "conv2")):
        layer = theirs.body.get_submodule(name)
        layer.conv.weight.copy_(torch.cat([branch.get_submodule(f"conv{ours}").weight for branch in branches]))
        for key in ("weight", "bias", "running_mean", "running_var"):
            values = [getattr(branch.get_submodule(f"bn{ours}"), key) for branch in branches]
            getattr(layer.bn, key).copy_(torch.cat(values))
    last = theirs.body.conv3
    scales = [branch.bn3.weight / (branch.bn3.running_var + branch.bn3.eps).sqrt() for branch in branches]
    weights = [0.5 * s[:, None, None, None] * b.conv3.weight for s, b in zip(scales, branches, strict=True)]
    last.conv.weight.copy_(torch.cat(weights, 1))
    shifts = [0.5 * (b.bn3.bias - s * b.bn3.running_mean) for s, b in zip(scales, branches, strict=True)]
    last.bn.running_var.fill_(1 - last.bn.eps)
    last.bn.bias.copy_(sum(shifts))
    if unit.downsample is not None:
        theirs.identity_conv.conv.load_state_dict(unit.downsample[0].state_dict())
        theirs.identity_conv.bn.load_state_dict(unit.downsample[1].state_dict())


def test_shake_even_evaluates_as_a_resnext_of_twice_the_groups() -> None:
    """29 2x4x64d is ResNeXt-29 8x64d in two branches; of its kind, a smaller one."""
    options = {"units": (2, 1, 1), "channels": (32, 64, 128), "widths": (16, 32, 64), "groups": 2}
    ours = randomise(ShakeShake(ShakeShakeSpec(**{**vars(SHAKE_EVEN_29_2X4X64D), **options}))).double()
    theirs = CIFARResNeXt([[32, 32], [64], [128]], 64, cardinality=4, bottleneck_width=64).double()
    with torch.no_grad():
        theirs.features.init_block.conv.load_state_dict(ours.conv1.state_dict())
        theirs.features.init_block.bn.load_state_dict(ours.bn1.state_dict())
        for name in ours.stage_names:
            stage = theirs.features.get_submodule(name.replace("layer", "stage"))
            for unit, its in zip(getattr(ours, name), stage, strict=True):
                as_resnext(unit, its)
        theirs.output.load_state_dict(ours.fc.state_dict())
    assert_same_logits(ours, theirs, 32)


@pytest.mark.parametrize(("height", "width", "stride"), [(6, 4, 2), (5, 7, 2), (4, 4, 1)])
def test_shifted_shortcut_sees_other_pixels(height: int, width: int, stride: int) -> None:
    shortcut = ShiftedShortcut(2, 4, stride).double()
    nn.init.constant_(shortcut.conv1.weight, 1)
    nn.init.constant_(shortcut.conv2.weight, 1)
    shortcut.bn = nn.Identity()
    x = torch.arange(float(2 * height * width), dtype=torch.float64).view(1, 2, height, width)
    out, sums = shortcut(x)[0], x[0].sum(0)
    for row in range(out.shape[1]):
        for column in range(out.shape[2]):
            i, j = row * stride, column * stride
            assert out[0, row, column] == sums[i, j]
            assert out[2, row, column] == (sums[i - 1, j - 1] if i and j else 0)
    assert out.shape == (4, -(-height // stride), -(-width // stride))


def test_se_stands_on_the_mix_before_the_sum() -> None:
    model = randomise(ShakeShake(ShakeShakeSpec(**{**SMALL, "units": (2, 1, 1)}))).double().eval()
    names = [f"{name}.{number}.mix" for name in model.stage_names for number in range(len(getattr(model, name)))]
    insert(model, at=names, init="paper", reduction=4)
    unit = model.layer1[1]
    x = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    y = torch.relu(x)
    assert_close(unit(x), unit.mix.standard.se((unit.branch1(y) + unit.branch2(y)) / 2) + x)
    blocks = [m for m in model.modules() if isinstance(m, SqueezeExcitation)]
    assert [block.channels for block in blocks] == [16, 16, 24, 32]


def test_training_mixes_each_units_branches_by_shares_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With alpha 1 the first branch of every unit has all of the output, with beta 0 the second all of the gradient."""
    model = ShakeShake(ShakeShakeSpec(**SMALL), num_classes=3)
    shares = []

    def draw(y: Tensor, backward: str) -> tuple[Tensor, Tensor]:
        shares.append((len(y), backward))
        return torch.ones(len(y), 1, 1, 1), torch.zeros(len(y), 1, 1, 1)

    monkeypatch.setattr(shake_mix, "_draw", draw)
    x = torch.randn(4, 3, 8, 8)
    out = model(x)
    out.square().sum().backward()
    assert shares == [(4, "shake")] * 3
    for name, parameter in model.named_parameters():
        if "branch" in name:
            assert bool(parameter.grad.any()) == ("branch2" in name), name
    with torch.no_grad():
        for stage in model.stage_names:
            for parameter in getattr(model, stage)[0].branch2.parameters():
                parameter.add_(1)
        assert torch.equal(model(x), out)


@pytest.mark.parametrize("spec", [SHAKE_SHAKE_26_2X96D, SHAKE_EVEN_29_2X4X64D], ids=["26", "29"])
def test_trains_in_mixed_precision(spec: ShakeShakeSpec) -> None:
    size = {"units": (1, 1, 1), "channels": (16, 24, 32), "widths": (16, 24, 32)}
    model = ShakeShake(ShakeShakeSpec(**{**vars(spec), **size}), num_classes=3)
    seen = []
    model.layer1[0].mix.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.cross_entropy(model(torch.randn(4, 3, 16, 16)), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    assert seen == [torch.bfloat16]
    for parameter in model.parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shortcut": "pad"}, "unknown shortcut 'pad'.*shifted, projection"),
        ({"backward": "keep"}, "unknown backward 'keep'.*shake, even"),
        ({"units": (1, 1)}, r"one number for each stage, got \(1, 1\), \(16, 24, 32\) and"),
        ({"groups": 4}, "groups=4 is for bottlenecks; use bottleneck=True or groups=1"),
    ],
)
def test_spec_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShakeShakeSpec(**{**SMALL, **options})
