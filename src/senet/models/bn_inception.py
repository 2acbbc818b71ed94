"""BN-Inception: Inception with batch norm, as the authors of Squeeze-and-Excitation released it."""

# Annotations stay text: torch.fx keeps those of a root's forward, and cannot pickle shapes.
from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from math import inf, log2
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from senet.graph.stages import stage_of_stride
from senet.models.base import Classifier, check_rate, convolution
from senet.utils.choices import check_choices
from senet.utils.modes import is_traced

__all__ = ["BNInception", "BNInceptionSpec", "Inception", "InceptionSpec"]


@dataclass(frozen=True)
class InceptionSpec:
    """The channels of one Inception module, branch by branch.

    Attributes:
        conv1x1: channels of the 1x1 branch; 0 in a module with stride 2.
        conv3x3_reduce, conv3x3: channels of the 1x1 and the 3x3 convolution of the 3x3 branch.
        double3x3_reduce, double3x3: channels of the 1x1 and of both 3x3 convolutions of the double 3x3 branch.
        pool_proj: channels of the 1x1 convolution after the pool; 0 in a module with stride 2.
        pool: "avg" or "max"; "max" in a module with stride 2.
        stride: stride of the last 3x3 convolutions and the pool, 1 or 2.

    Raises:
        ValueError: `pool` or `stride` is unknown, or a branch is invalid for the stride.
    """

    conv1x1: int
    conv3x3_reduce: int
    conv3x3: int
    double3x3_reduce: int
    double3x3: int
    pool_proj: int
    pool: Literal["avg", "max"] = field(default="avg", kw_only=True)
    stride: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        check_choices(self)
        if self.stride not in (1, 2):
            raise ValueError(f"stride must be 1 or 2, got {self.stride}")
        one, proj = self.conv1x1 > 0, self.pool_proj > 0
        if self.stride == 2 and (one or proj or self.pool != "max"):
            raise ValueError(
                "a module of stride 2 has no 1x1 branch, and a max pool without a convolution: conv1x1 and pool_proj "
                f"must be 0 and pool 'max', got {self.conv1x1}, {self.pool_proj} and {self.pool!r}"
            )
        if self.stride == 1 and not (one and proj):
            raise ValueError(
                "a module of stride 1 has four branches: conv1x1 and pool_proj must be 1 or more, "
                f"got {self.conv1x1} and {self.pool_proj}"
            )

    def out_channels(self, in_channels: int) -> int:
        """Return the channels of the output, the concatenated branches."""
        last = self.pool_proj if self.stride == 1 else in_channels
        return self.conv1x1 + self.conv3x3 + self.double3x3 + last


_RELEASED = (
    ("3a", InceptionSpec(64, 64, 64, 64, 96, 32)),
    ("3b", InceptionSpec(64, 64, 96, 64, 96, 64)),
    ("3c", InceptionSpec(0, 128, 160, 64, 96, 0, pool="max", stride=2)),
    ("4a", InceptionSpec(224, 64, 96, 96, 128, 128)),
    ("4b", InceptionSpec(192, 96, 128, 96, 128, 128)),
    ("4c", InceptionSpec(160, 128, 160, 128, 160, 128)),
    ("4d", InceptionSpec(96, 128, 192, 160, 192, 128)),
    ("4e", InceptionSpec(0, 128, 192, 192, 256, 0, pool="max", stride=2)),
    ("5a", InceptionSpec(352, 192, 320, 160, 224, 128)),
    ("5b", InceptionSpec(352, 192, 320, 192, 224, 128, pool="max")),
)


@dataclass(frozen=True, kw_only=True)
class BNInceptionSpec:
    """The hyperparameters of a BN-Inception; the defaults are the release's.

    Attributes:
        stem: channels of the 7x7 convolution, and of the 1x1 and the 3x3 after the first pool.
        modules: name and channels of each Inception module.
        drop_rate: dropout before the classifier; the release has none.

    Raises:
        ValueError: no modules, or `drop_rate` below 0, or 1 or more.
    """

    stem: tuple[int, int, int] = (64, 64, 192)
    modules: tuple[tuple[str, InceptionSpec], ...] = _RELEASED
    drop_rate: float = 0.0

    def __post_init__(self) -> None:
        if not self.modules:
            raise ValueError("modules must have one Inception module or more, got none")
        check_rate("drop_rate", self.drop_rate)


# Architecture options of `create_model`.
OPTIONS = ("drop_rate",)


class BNInception(Classifier):
    """BN-Inception without SE (Ioffe and Szegedy 2015, arXiv 1502.03167, as released by the authors of SE).

    Convolutions have no bias; a batch norm and a ReLU follow each. The stem's pools have no padding and round the size
    up; average pools count the padding. Modules are named as in the release: `inception_3a` to `inception_5b`, and
    in them `conv1x1`, `conv3x3_reduce`, `conv3x3`, `double3x3_reduce`, `double3x3a`, `double3x3b` and `pool_proj`.

    Args:
        spec: the network's hyperparameters.
        num_classes: number of classes; with 0, `forward` returns the pooled features.
        in_channels: channels of the images.

    Raises:
        ValueError: `num_classes` below 0 or `in_channels` below 1.
    """

    def __init__(self, spec: BNInceptionSpec | None = None, *, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.spec = spec = spec or BNInceptionSpec()
        first, reduced, channels = spec.stem
        self.conv1 = _layer(in_channels, first, 7, 2)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2_reduce = _layer(first, reduced, 1)
        self.conv2 = _layer(reduced, channels, 3)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.feature_info = [_map(first, 2, "conv1"), _map(channels, 4, "conv2")]
        # The stage of each module: log2 of the total stride.
        self.stages: dict[str, int] = {}
        reduction = 8
        for suffix, numbers in spec.modules:
            name, module = f"inception_{suffix}", Inception(channels, numbers)
            self.add_module(name, module)
            channels, reduction = module.out_channels, reduction * numbers.stride
            self.stages[name] = stage_of_stride(log2(reduction))
            # The last map of each resolution.
            if self.feature_info[-1]["reduction"] == reduction:
                self.feature_info.pop()
            self.feature_info.append(_map(channels, reduction, name))
        self._add_head(channels, num_classes, spec.drop_rate)

    def forward_features(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F h w"]:
        """Map (N, in_channels, H, W) to (N, num_features, h, w), the last map before pooling."""
        x = self.pool1(self.conv1(x))
        x = self.pool2(self.conv2(self.conv2_reduce(x)))
        for name in self.stages:
            x = self._run(getattr(self, name), x)
        return x

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns to group parameters by resolution (coarse) or module, for timm's layer-wise rates."""
        groups = self.stages if coarse else {name: number for number, name in enumerate(self.stages)}
        return {"stem": r"^conv[12]", "blocks": [(rf"^{name}\.", (number,)) for name, number in groups.items()]}


class Inception(nn.Module):
    """Branches of several kernel sizes, concatenated in the output (Szegedy et al. 2014, arXiv 1409.4842).

    In the order of their channels in the output: 1x1; 3x3; two 3x3, with the receptive field of a 5x5; and a pool with
    a 1x1 convolution. A module with stride 2 has three branches: 3x3, two 3x3, and a max pool alone.

    Args:
        in_channels: channels of the input.
        spec: channels of the branches.
    """

    def __init__(self, in_channels: int, spec: InceptionSpec) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = spec.out_channels(in_channels)
        self.stride = spec.stride
        self.conv1x1 = _layer(in_channels, spec.conv1x1, 1) if spec.stride == 1 else None
        self.conv3x3_reduce = _layer(in_channels, spec.conv3x3_reduce, 1)
        self.conv3x3 = _layer(spec.conv3x3_reduce, spec.conv3x3, 3, spec.stride)
        self.double3x3_reduce = _layer(in_channels, spec.double3x3_reduce, 1)
        self.double3x3a = _layer(spec.double3x3_reduce, spec.double3x3, 3)
        self.double3x3b = _layer(spec.double3x3, spec.double3x3, 3, spec.stride)
        self.pool = _pool(spec)
        self.pool_proj = _layer(in_channels, spec.pool_proj, 1) if spec.stride == 1 else None

    def forward(self, x: Float[Tensor, "N C_in H W"]) -> Float[Tensor, "N C_out h w"]:
        """Map (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        branches = [
            self.conv3x3(self.conv3x3_reduce(x)),
            self.double3x3b(self.double3x3a(self.double3x3_reduce(x))),
            self.pool(x) if self.pool_proj is None else self.pool_proj(self.pool(x)),
        ]
        if self.conv1x1 is not None:
            branches.insert(0, self.conv1x1(x))
        return torch.cat(branches, 1)


class _HalvingPool(nn.Module):
    """Max pooling, 3x3 with stride 2, to half the size, rounded up.

    It equals the release's pool for even sizes. For odd sizes the release's output has one row less than the parallel
    convolutions; here the map is padded by one row.
    """

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C h w"]:
        """(N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))."""
        return _halve(x)


def _halve(x: Tensor) -> Tensor:
    """Pool a map; a leaf of torch.fx traces, since it depends on the shape."""
    rows, columns = x.shape[2] % 2, x.shape[3] % 2
    if is_traced() or rows or columns:  # a trace records the pad, whose size depends on the image
        x = F.pad(x, (0, columns, 0, rows), value=-inf)
    return F.max_pool2d(x, 3, 2, ceil_mode=True)


torch.fx.wrap("_halve")


def _layer(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=convolution(in_channels, out_channels, kernel, stride),
            bn=nn.BatchNorm2d(out_channels),
            relu=nn.ReLU(inplace=True),
        )
    )


def _pool(spec: InceptionSpec) -> nn.Module:
    if spec.stride == 2:
        return _HalvingPool()
    return nn.MaxPool2d(3, 1, padding=1) if spec.pool == "max" else nn.AvgPool2d(3, 1, padding=1)


def _map(channels: int, reduction: int, module: str) -> dict[str, Any]:
    return {"num_chs": channels, "reduction": reduction, "module": module}
