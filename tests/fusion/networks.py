"""Tiny networks of libraries, and copied class structures: SE after a batch norm, or after its activation."""

from collections.abc import Callable
from functools import partial
from typing import Any

import timm.layers
import timm.models.ghostnet
import timm.models.regnet
import timm.models.senet
import torch
import torch.nn.functional as F
from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.efficientnet import EfficientNet as TorchvisionEfficientNet
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.mobilenetv3 import MobileNetV3 as TorchvisionMobileNetV3

import senet
from tests.networks import _timm

_BLOCKS = [["ds_r1_k3_s1_e1_c8_se0.25"], ["ir_r2_k3_s2_e2_c8_se0.25"]]


def efficientnet(**options: Any) -> nn.Module:
    """Build timm's EfficientNet of three blocks."""
    return EfficientNet(
        decode_arch_def(_BLOCKS), num_classes=5, num_features=16, stem_size=8, act_layer=nn.SiLU, **options
    )


def mobilenetv3(**options: Any) -> nn.Module:
    """Build timm's MobileNetV3 of three blocks."""
    se = partial(SqueezeExcite, gate_layer="hard_sigmoid", force_act_layer=nn.ReLU)
    return MobileNetV3(
        decode_arch_def(_BLOCKS), num_classes=5, num_features=16, stem_size=8, act_layer=nn.Hardswish, se_layer=se,
        **options,
    )  # fmt: skip


def regnety(**options: Any) -> nn.Module:
    """Build timm's RegNetY of two stages."""
    cfg = timm.models.regnet.RegNetCfg(
        depth=5, w0=8, wa=8.0, wm=1.6, group_size=8, se_ratio=0.25, stem_width=8, **options
    )
    return timm.models.regnet.RegNet(cfg, num_classes=5)


def seresnet() -> nn.Module:
    """Build timm's SE-ResNet with bottlenecks, whose SE follows a batch norm without activation."""
    return _timm(timm.models.resnet.Bottleneck, (1, 1, 1, 1), block_args={"attn_layer": "se"})


def torchvision_efficientnet() -> nn.Module:
    """Build torchvision's EfficientNet of two blocks, with stochastic depth."""
    return TorchvisionEfficientNet([MBConvConfig(2, 3, 1, 8, 8, 2)], dropout=0.0, num_classes=5, last_channel=16)


def torchvision_mobilenetv3() -> nn.Module:
    """Build torchvision's MobileNetV3 of two blocks."""
    rows = [InvertedResidualConfig(16, 3, 24, 16, True, how, 1, 1, 1.0) for how in ("RE", "HS")]
    return TorchvisionMobileNetV3(rows, last_channel=16, num_classes=5)


class Net(nn.Module):
    """Blocks between a stem and a head."""

    def __init__(self, *blocks: nn.Module, channels: int = 8, axes: int = 2) -> None:
        super().__init__()
        convolution: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
        self.stem, self.blocks = convolution(3, channels, 3, padding=1), nn.Sequential(*blocks)
        self.fc = nn.LazyLinear(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).flatten(2).mean(2))  # type: ignore[no-any-return]


class MonaiSE(nn.Module):
    """As MONAI's ChannelSELayer: any number of axes, a sequence of linear layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Sequential(nn.Linear(channels, 4), nn.ReLU(inplace=True), nn.Linear(4, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        b, c = x.shape[:2]
        y = self.fc(self.avg_pool(x).view(b, c)).view([b, c] + [1] * (x.ndim - 2))
        return x * y


class MonaiBlock(nn.Module):
    """As MONAI's SEBlock: the batch norm is in sequences inside sequences."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        adn = nn.Sequential()
        adn.add_module("N", nn.BatchNorm3d(channels))
        self.conv3 = nn.Sequential()
        self.conv3.add_module("conv", nn.Conv3d(channels, channels, 3, padding=1))
        self.conv3.add_module("adn", adn)
        self.se_layer, self.act = MonaiSE(channels), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        x = self.se_layer(self.conv3(x))
        x += residual
        return self.act(x)  # type: ignore[no-any-return]


class ConvModule(nn.Module):
    """As mmcv's ConvModule: convolution, norm and activation as children."""

    def __init__(self, inputs: int, outputs: int, act: nn.Module | None, norm: bool = False, **options: Any) -> None:
        super().__init__()
        self.conv, self.activate = nn.Conv2d(inputs, outputs, bias=not norm, **options), act
        if norm:
            self.add_module("bn", nn.BatchNorm2d(outputs))
        self.with_norm = norm

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.with_norm:
            x = self.bn(x)
        return x if self.activate is None else self.activate(x)  # type: ignore[no-any-return]


class MMSELayer(nn.Module):
    """As mmpretrain's SELayer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.global_avgpool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = ConvModule(channels, 4, nn.ReLU(inplace=True), kernel_size=1)
        self.conv2 = ConvModule(4, channels, nn.Sigmoid(), kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(self.conv1(self.global_avgpool(x)))  # type: ignore[no-any-return]


class MMInvertedResidual(nn.Module):
    """As mmpretrain's InvertedResidual: it checkpoints a function inside its forward."""

    def __init__(self, channels: int, act: nn.Module, with_cp: bool | None = None) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.depthwise_conv = ConvModule(channels, channels, act, norm=True, kernel_size=3, padding=1, groups=channels)
        self.se = MMSELayer(channels)
        self.linear_conv = ConvModule(channels, channels, None, norm=True, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        def inner(x: Tensor) -> Tensor:
            return x + self.linear_conv(self.se(self.depthwise_conv(x)))  # type: ignore[no-any-return]

        if self.with_cp is None or not x.requires_grad:
            return inner(x)
        return checkpoint(inner, x, use_reentrant=self.with_cp)  # type: ignore[no-any-return]


class MMBottleneck(nn.Module):
    """As mmpretrain's SEBottleneck: the ReLU after the sum is outside of the function that it checkpoints."""

    def __init__(self, channels: int, with_cp: bool | None = None) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.add_module("bn3", nn.BatchNorm2d(channels))
        self.se_layer, self.relu, self.with_cp = MMSELayer(channels), nn.ReLU(inplace=True), with_cp

    def forward(self, x: Tensor) -> Tensor:
        def inner(x: Tensor) -> Tensor:
            out = self.se_layer(self.bn3(self.conv3(x)))
            out += x
            return out  # type: ignore[no-any-return]

        if self.with_cp is None or not x.requires_grad:
            return self.relu(inner(x))  # type: ignore[no-any-return]
        return self.relu(checkpoint(inner, x, use_reentrant=self.with_cp))  # type: ignore[no-any-return]


class NvidiaBlock(nn.Module):
    """As NVIDIA's SE-ResNet: SE returns the gate, and the block multiplies and adds in one operation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.squeeze, self.relu = MMGate(channels), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn(self.conv(x))
        return self.relu(torch.addcmul(x, out, self.squeeze(out), value=1))  # type: ignore[no-any-return]


class MMGate(MMSELayer):
    """Returns the gate alone."""

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(self.global_avgpool(x)))  # type: ignore[no-any-return]


class FunctionalSE(nn.Module):
    """SE whose activation and gate are functions, with linear layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(channels, 4), nn.Linear(4, channels)

    def forward(self, x: Tensor) -> Tensor:
        gates = torch.sigmoid(self.up(F.relu(self.down(x.flatten(2).mean(2)))))
        return x * gates.view(*gates.shape, *[1] * (x.ndim - 2))


class Block(nn.Sequential):
    """A convolution, and any modules after it."""

    def __init__(self, *after: nn.Module, channels: int = 8, axes: int = 2) -> None:
        convolution: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
        super().__init__(convolution(channels, channels, 3, padding=1), *after)


def ghost() -> nn.Module:
    """Build GhostNet's units: the strided one has batch norm and SE, the other one SE after a concatenation."""
    unit = partial(timm.models.ghostnet.GhostBottleneck, 8, 12, 8, se_ratio=0.25)
    return Net(unit(stride=2), unit(stride=1))


def legacy() -> nn.Module:
    """Build units of timm's legacy SE-ResNet-18: one ReLU module is called before SE, and twice elsewhere."""
    return Net(*[timm.models.senet.SEResNetBlock(8, 8, groups=1, reduction=2) for _ in range(2)])


def attached() -> nn.Module:
    """Build a network with SE that senet attached to a batch norm with an activation, and to a ReLU."""
    with_activation = timm.layers.BatchNormAct2d(8, act_layer=nn.ReLU6)
    model = Net(Block(with_activation), Block(nn.BatchNorm2d(8), nn.ReLU(inplace=True)))
    model.eval()(torch.zeros(1, 3, 8, 8))
    return senet.insert(model, at=["blocks.0.1", "blocks.1.2"], init="paper", reduction=4)


# By name: how to build it, the spatial axes of its images, and how many SE modules are fused and left.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int, int]] = {
    "timm efficientnet": (efficientnet, 2, 3, 0),
    "timm efficientnet, stochastic depth": (lambda: efficientnet(drop_path_rate=0.3), 2, 3, 0),
    "timm mobilenetv3": (mobilenetv3, 2, 3, 0),
    "timm regnety": (regnety, 2, 5, 0),
    "timm seresnet": (seresnet, 2, 4, 0),
    "timm legacy": (legacy, 2, 2, 0),
    "timm ghostnet": (ghost, 2, 1, 1),
    "torchvision efficientnet": (torchvision_efficientnet, 2, 2, 0),
    "torchvision mobilenetv3": (torchvision_mobilenetv3, 2, 2, 0),
    "MONAI": (lambda: Net(MonaiBlock(8), axes=3), 3, 1, 0),
    "mmpretrain": (lambda: Net(MMInvertedResidual(8, nn.SiLU()), MMInvertedResidual(8, nn.ReLU6())), 2, 2, 0),
    "mmpretrain bottleneck": (lambda: Net(MMBottleneck(8), MMBottleneck(8)), 2, 2, 0),
    "NVIDIA": (lambda: Net(NvidiaBlock(8)), 2, 0, 1),
    "functions": (lambda: Net(Block(nn.BatchNorm1d(8), nn.ReLU(), FunctionalSE(8), axes=1), axes=1), 1, 1, 0),
    "effective": (
        lambda: Net(Block(timm.layers.BatchNormAct2d(8), timm.layers.EffectiveSEModule(8))), 2, 1, 0,
    ),
    "statistics of batches": (
        lambda: Net(Block(nn.BatchNorm2d(8, affine=False, track_running_stats=False), MMSELayer(8))), 2, 1, 0,
    ),
    "average statistics": (
        lambda: Net(Block(nn.BatchNorm2d(8, momentum=None), nn.Hardswish(), MMSELayer(8))), 2, 1, 0,
    ),
    "norm in SE": (
        lambda: Net(Block(nn.BatchNorm2d(8), nn.ReLU(), timm.layers.SEModule(8, norm_layer=nn.BatchNorm2d))), 2, 1, 0,
    ),
    "senet": (attached, 2, 2, 0),
}  # fmt: skip


def build(name: str) -> tuple[nn.Module, Tensor]:
    """Return a network in training mode with weights as of a trained one, in float64, and images."""
    from tests.helpers import randomise

    make, axes, *_ = NETWORKS[name]
    model, x = make(), torch.randn(4, 3, *(10, 12, 8)[:axes])
    model.eval()(x)  # creates lazy layers
    return randomise(model).double().train(), x.double()
