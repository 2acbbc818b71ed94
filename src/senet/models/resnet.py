"""One implementation of residual networks: ResNet, ResNeXt, SENet-154's plain twin, CIFAR's, pre-activation and wide.

`ResNetSpec` holds their differences.
"""

# Annotations stay text: torch.fx keeps those of a root's forward, and cannot pickle shapes.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from senet.models.base import Classifier, check_rate, convolution
from senet.models.units import PadShortcut, PostActivationUnit, PreActivationUnit
from senet.utils.choices import check_choices

__all__ = ["ResNet", "ResNetSpec"]

Stem = Literal["conv7", "deep", "conv3"]
Pool = Literal["ceil", "pad", "none"]


@dataclass(frozen=True, kw_only=True)
class ResNetSpec:
    """The hyperparameters of a residual network.

    Attributes:
        units: residual units of each stage.
        channels: output channels of each stage.
        widths: channels of the 3x3 convolutions of each stage.
        bottleneck: whether a unit has 1x1, 3x3 and 1x1 convolutions; otherwise two 3x3.
        groups: groups of the 3x3 convolution of a bottleneck (ResNeXt's cardinality).
        halve_first: whether a bottleneck's first 1x1 convolution has half the width (SENet-154).
        preactivation: whether batch norm and ReLU precede each convolution.
        stem: "conv7": 7x7, stride 2; "deep": three 3x3, the first of stride 2, of half the channels but for the last
            (SENet-154); "conv3": one 3x3 of stride 1 (CIFAR).
        stem_channels: channels of the stem's output.
        pool: max pooling after the stem, 3x3 of stride 2: "ceil": no padding, the size rounded up, as the authors
            released; "pad": padded by one, as in torchvision; "none".
        stride_in: the convolution of a bottleneck that has the stride: "conv1", the first 1x1, as the authors
            released; or "conv2", the 3x3, as in torchvision.
        shortcut: where the shape changes: "projection", a convolution with batch norm (in pre-activation units
            without); or "pad", which has no parameters.
        projection: kernel size of projections with a stride, 1 or 3 (SENet-154).
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last unit; rises linearly from 0 at the first.

    Raises:
        ValueError: an option has an unknown value, or does not apply to the network's units.

    Examples:
        >>> from senet.models import ResNet, ResNetSpec
        >>> units = {"units": (1, 1), "channels": (16, 32), "widths": (16, 32), "bottleneck": False}
        >>> spec = ResNetSpec(**units, stem="conv3", pool="none")
        >>> model = senet.insert(ResNet(spec, num_classes=10))
        >>> model(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    units: tuple[int, ...]
    channels: tuple[int, ...]
    widths: tuple[int, ...]
    bottleneck: bool
    groups: int = 1
    halve_first: bool = False
    preactivation: bool = False
    stem: Stem = "conv7"
    stem_channels: int = 64
    pool: Pool = "ceil"
    stride_in: Literal["conv1", "conv2"] = "conv1"
    shortcut: Literal["projection", "pad"] = "projection"
    projection: int = 1
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self)
        if self.stride_in == "conv2" and not self.bottleneck:
            raise ValueError(
                "stride_in='conv2' is for bottlenecks: a basic unit has its stride in conv1, its first 3x3 convolution"
            )
        if self.projection not in (1, 3):
            raise ValueError(f"projection must be 1 or 3, the kernel size of strided shortcuts, got {self.projection}")
        for name in ("drop_rate", "drop_path_rate"):
            check_rate(name, getattr(self, name))


# Architecture options of `create_model`; other fields define another network rather than a variant.
OPTIONS = ("stem", "pool", "stride_in", "shortcut", "projection", "drop_rate", "drop_path_rate")
assert set(OPTIONS) <= {field.name for field in fields(ResNetSpec)}


class ResNet(Classifier):
    """A residual network without SE (He et al. 2015, 2016; Xie et al. 2017; Zagoruyko and Komodakis 2016).

    Children are named as in torchvision: `conv1`, `bn1`, `layer1`, ..., `fc`. He initialization (paper section 6.1).

    Args:
        spec: the network's hyperparameters.
        num_classes: number of classes; with 0, `forward` returns the pooled features.
        in_channels: channels of the images.

    Raises:
        ValueError: `num_classes` below 0 or `in_channels` below 1.

    Examples:
        >>> model = senet.create_model("resnet20")
        >>> type(model).__name__, model.get_classifier().out_features
        ('ResNet', 10)
        >>> model.forward_features(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 64, 8, 8])
    """

    def __init__(self, spec: ResNetSpec, *, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.spec = spec
        self.conv1 = _stem(spec, in_channels)
        self.bn1 = nn.Identity() if spec.preactivation else nn.BatchNorm2d(spec.stem_channels)
        self.relu = nn.Identity() if spec.preactivation else nn.ReLU(inplace=True)
        self.maxpool = _pool(spec.pool)
        reduction = 1 if spec.stem == "conv3" else 2
        self.feature_info = [{"num_chs": spec.stem_channels, "reduction": reduction, "module": "relu"}]
        reduction *= 1 if spec.pool == "none" else 2
        for index, stage in enumerate(_stages(spec)):
            self._add_stage(stage, spec.channels[index], reduction << index)
        self.norm = (
            nn.Sequential(nn.BatchNorm2d(spec.channels[-1]), nn.ReLU(inplace=True))
            if spec.preactivation
            else nn.Identity()
        )
        self._add_head(spec.channels[-1], num_classes, spec.drop_rate)

    def forward_features(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F h w"]:
        """Map (N, in_channels, H, W) to (N, num_features, h, w), the last map before pooling."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.norm(self._run_stages(x))  # type: ignore[no-any-return]


def _stem(spec: ResNetSpec, in_channels: int) -> nn.Module:
    if spec.stem == "conv7":
        return convolution(in_channels, spec.stem_channels, 7, 2)
    if spec.stem == "conv3":
        return convolution(in_channels, spec.stem_channels, 3)
    half = spec.stem_channels // 2
    return nn.Sequential(
        convolution(in_channels, half, 3, 2),
        nn.BatchNorm2d(half),
        nn.ReLU(inplace=True),
        convolution(half, half, 3),
        nn.BatchNorm2d(half),
        nn.ReLU(inplace=True),
        convolution(half, spec.stem_channels, 3),
    )


def _pool(kind: str) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    return nn.MaxPool2d(3, 2, ceil_mode=True) if kind == "ceil" else nn.MaxPool2d(3, 2, padding=1)


def _stages(spec: ResNetSpec) -> Iterator[nn.Sequential]:
    unit_kind = PreActivationUnit if spec.preactivation else PostActivationUnit
    in_channels, built, total = spec.stem_channels, 0, sum(spec.units)
    for index, units in enumerate(spec.units):
        width, out_channels = spec.widths[index], spec.channels[index]
        stage = nn.Sequential()
        for number in range(units):
            stride = 2 if index and not number else 1
            stage.append(
                unit_kind(
                    _convolutions(spec, in_channels, width, out_channels, stride),
                    _shortcut(spec, in_channels, out_channels, stride),
                    _drop_path(spec.drop_path_rate * built / max(1, total - 1)),
                )
            )
            in_channels, built = out_channels, built + 1
        yield stage


def _convolutions(spec: ResNetSpec, in_channels: int, width: int, out_channels: int, stride: int) -> list[nn.Conv2d]:
    if not spec.bottleneck:
        return [convolution(in_channels, width, 3, stride), convolution(width, out_channels, 3)]
    first = width // 2 if spec.halve_first else width
    strides = (stride, 1) if spec.stride_in == "conv1" else (1, stride)
    return [
        convolution(in_channels, first, 1, strides[0]),
        convolution(first, width, 3, strides[1], spec.groups),
        convolution(width, out_channels, 1),
    ]


def _shortcut(spec: ResNetSpec, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if stride == 1 and in_channels == out_channels:
        return None
    if spec.shortcut == "pad":
        return PadShortcut(in_channels, out_channels, stride)
    projection = convolution(in_channels, out_channels, spec.projection if stride > 1 else 1, stride)
    return projection if spec.preactivation else nn.Sequential(projection, nn.BatchNorm2d(out_channels))


def _drop_path(rate: float) -> nn.Module | None:
    if not rate:
        return None
    from timm.layers import DropPath

    return DropPath(rate)  # type: ignore[no-any-return]
