"""Shake-Shake networks for CIFAR: residual units of two branches, mixed at random in training."""

# Annotations stay text: torch.fx keeps those of a root's forward, and cannot pickle shapes.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from senet.models.base import Classifier, check_rate, convolution
from senet.models.shake_mix import Backward, ShakeShakeMix
from senet.utils.choices import check_choices

__all__ = [
    "SHAKE_EVEN_29_2X4X64D",
    "SHAKE_SHAKE_26_2X96D",
    "ShakeShake",
    "ShakeShakeSpec",
    "ShakeShakeUnit",
    "ShiftedShortcut",
]


@dataclass(frozen=True, kw_only=True)
class ShakeShakeSpec:
    """The hyperparameters of a Shake-Shake network.

    Attributes:
        units: residual units of each stage; from the second stage on, the first has stride 2.
        channels: output channels of each stage.
        widths: channels inside the branches of each stage.
        bottleneck: whether a branch has 1x1, 3x3 and 1x1 convolutions; otherwise two 3x3.
        groups: groups of the 3x3 convolution of a bottleneck (ResNeXt's cardinality).
        preactivation: whether the ReLU precedes the branches and does not follow the sum.
        stem_channels: channels of the 3x3 convolution before the stages.
        shortcut: where the shape changes: "shifted", see `ShiftedShortcut`, or "projection", one 1x1 convolution with
            batch norm.
        backward: the mixing coefficient in backward, "shake" or "even"; see `ShakeShakeMix`.
        drop_rate: dropout before the classifier.

    Raises:
        ValueError: an option with an unknown value; units, channels and widths differ in length; groups
            without bottlenecks; `drop_rate` below 0, or 1 or more.
    """

    units: tuple[int, ...]
    channels: tuple[int, ...]
    widths: tuple[int, ...]
    bottleneck: bool = False
    groups: int = 1
    preactivation: bool = True
    stem_channels: int = 16
    shortcut: Literal["shifted", "projection"] = "shifted"
    backward: Backward = "shake"
    drop_rate: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self)
        if not len(self.units) == len(self.channels) == len(self.widths):
            raise ValueError(
                "units, channels and widths must have one number for each stage, got "
                f"{self.units}, {self.channels} and {self.widths}"
            )
        if self.groups > 1 and not self.bottleneck:
            raise ValueError(f"groups={self.groups} is for bottlenecks; use bottleneck=True or groups=1")
        check_rate("drop_rate", self.drop_rate)


# Gastaldi 2017, section 2: CIFAR-10's network with pre-activation, CIFAR-100's without and with plain projections.
SHAKE_SHAKE_26_2X96D = ShakeShakeSpec(units=(4, 4, 4), channels=(96, 192, 384), widths=(96, 192, 384))
SHAKE_EVEN_29_2X4X64D = ShakeShakeSpec(
    units=(3, 3, 3),
    channels=(256, 512, 1024),
    widths=(256, 512, 1024),
    bottleneck=True,
    groups=4,
    preactivation=False,
    stem_channels=64,
    shortcut="projection",
    backward="even",
)
# Architecture options of `create_model`.
OPTIONS = ("shortcut", "backward", "drop_rate")


class ShakeShake(Classifier):
    """A Shake-Shake network without SE (Gastaldi 2017, arXiv 1705.07485, and its code).

    Children are named as in torchvision's residual networks: `conv1`, `bn1`, `layer1` to `layer3`, `fc`.

    Args:
        spec: the network's hyperparameters, such as `SHAKE_SHAKE_26_2X96D`.
        num_classes: number of classes; with 0, `forward` returns the pooled features.
        in_channels: channels of the images.

    Raises:
        ValueError: `num_classes` below 0 or `in_channels` below 1.
    """

    def __init__(self, spec: ShakeShakeSpec, *, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.spec = spec
        self.conv1 = convolution(in_channels, spec.stem_channels, 3)
        self.bn1 = nn.BatchNorm2d(spec.stem_channels)
        self.relu = nn.Identity() if spec.preactivation else nn.ReLU(inplace=True)
        self.feature_info = [{"num_chs": spec.stem_channels, "reduction": 1, "module": "relu"}]
        for index, stage in enumerate(_stages(spec)):
            self._add_stage(stage, spec.channels[index], 1 << index)
        self.last_relu = nn.ReLU() if spec.preactivation else nn.Identity()
        self._add_head(spec.channels[-1], num_classes, spec.drop_rate)

    def forward_features(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F h w"]:
        """Map (N, in_channels, H, W) to (N, num_features, h, w), the last map before pooling."""
        x = self.relu(self.bn1(self.conv1(x)))
        return self.last_relu(self._run_stages(x))  # type: ignore[no-any-return]


class ShakeShakeUnit(nn.Module):
    """`relu(mix + skip(x))` with `mix = alpha branch1(x) + (1 - alpha) branch2(x)`.

    With pre-activation the ReLU precedes the branches and a shortcut with parameters, and does not follow the sum; an
    identity skip takes x unchanged (Gastaldi's code, `shakeshakeblock.lua`).

    Args:
        branch1, branch2: two branches with outputs of one shape.
        mix: the mix of the branches.
        downsample: the skip; None is the identity.
        preactivation: whether the ReLU precedes the branches.
    """

    def __init__(
        self,
        branch1: nn.Module,
        branch2: nn.Module,
        mix: ShakeShakeMix,
        downsample: nn.Module | None = None,
        *,
        preactivation: bool,
    ) -> None:
        super().__init__()
        # Not in place before the branches: the skip takes the same x.
        self.relu = nn.ReLU(inplace=not preactivation)
        self.branch1 = branch1
        self.branch2 = branch2
        self.mix = mix
        self.downsample = downsample
        self.preactivation = preactivation
        self.out_channels = mix.out_channels

    def forward(self, x: Float[Tensor, "N C_in H W"]) -> Float[Tensor, "N C_out h w"]:
        """Map (N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        y = self.relu(x) if self.preactivation else x
        skip = x if self.downsample is None else self.downsample(y)
        out = self.mix(self.branch1(y), self.branch2(y)) + skip
        return out if self.preactivation else self.relu(out)  # type: ignore[no-any-return]


class ShiftedShortcut(nn.Module):
    """A shortcut of two strided 1x1 convolutions, whose outputs are concatenated and normalized by a batch norm.

    The second takes x shifted by one pixel right and down, so that the two read different pixels of x
    (Gastaldi 2017, section 2.1).

    Args:
        in_channels: of the unit.
        out_channels: of the unit; even.
        stride: of the unit.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, out_channels // 2, 1, stride)
        self.conv2 = convolution(in_channels, out_channels // 2, 1, stride)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Float[Tensor, "N C_in H W"]) -> Float[Tensor, "N C_out h w"]:
        """Map (N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        shifted = F.pad(x, (1, -1, 1, -1))
        return self.bn(torch.cat((self.conv1(x), self.conv2(shifted)), 1))  # type: ignore[no-any-return]


def _stages(spec: ShakeShakeSpec) -> Iterator[nn.Sequential]:
    in_channels = spec.stem_channels
    for index, units in enumerate(spec.units):
        width, out_channels = spec.widths[index], spec.channels[index]
        stage = nn.Sequential()
        for number in range(units):
            stride = 2 if index and not number else 1
            branch1, branch2 = (_branch(spec, in_channels, width, out_channels, stride) for _ in range(2))
            mix = ShakeShakeMix(out_channels, spec.backward)
            downsample = _shortcut(spec, in_channels, out_channels, stride)
            stage.append(ShakeShakeUnit(branch1, branch2, mix, downsample, preactivation=spec.preactivation))
            in_channels = out_channels
        yield stage


def _branch(spec: ShakeShakeSpec, in_channels: int, width: int, out_channels: int, stride: int) -> nn.Sequential:
    """Return a branch: convolutions with batch norm, and a ReLU between them."""
    if spec.bottleneck:
        convolutions = [
            convolution(in_channels, width, 1),
            convolution(width, width, 3, stride, spec.groups),
            convolution(width, out_channels, 1),
        ]
    else:
        convolutions = [convolution(in_channels, width, 3, stride), convolution(width, out_channels, 3)]
    branch = nn.Sequential()
    for number, layer in enumerate(convolutions, 1):
        if number > 1:
            branch.add_module(f"relu{number - 1}", nn.ReLU(inplace=True))
        branch.add_module(f"conv{number}", layer)
        branch.add_module(f"bn{number}", nn.BatchNorm2d(layer.out_channels))
    return branch


def _shortcut(spec: ShakeShakeSpec, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if stride == 1 and in_channels == out_channels:
        return None
    if spec.shortcut == "shifted":
        return ShiftedShortcut(in_channels, out_channels, stride)
    return nn.Sequential(convolution(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))
