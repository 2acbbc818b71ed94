"""ShuffleNet, version 1: grouped 1x1 convolutions, and a shuffle of channels between the groups."""

# Annotations stay text: torch.fx keeps those of a root's forward, and cannot pickle shapes.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from senet.models.base import Classifier, check_rate, convolution
from senet.nn.fused import is_watched
from senet.nn.sum_relu import sum_relu

__all__ = ["ShuffleNet", "ShuffleNetSpec", "ShuffleUnit"]


@dataclass(frozen=True, kw_only=True)
class ShuffleNetSpec:
    """The hyperparameters of a ShuffleNet; the defaults are 1x with three groups (Zhang et al. 2017, Table 1).

    Attributes:
        units: units of each stage; the first unit of a stage has stride 2.
        channels: output channels of each stage, with a bottleneck of a quarter in each unit.
        groups: groups of the 1x1 convolutions, except the network's first, whose input has few channels.
        stem_channels: channels of the stem's output.
        drop_rate: dropout before the classifier.

    Raises:
        ValueError: units and channels differ in length; channels are not divisible by the groups, or do not increase;
            `drop_rate` below 0, or 1 or more.
    """

    units: tuple[int, ...] = (4, 8, 4)
    channels: tuple[int, ...] = (240, 480, 960)
    groups: int = 3
    stem_channels: int = 24
    drop_rate: float = 0.0

    def __post_init__(self) -> None:
        if len(self.units) != len(self.channels) or not self.units:
            raise ValueError(
                f"units and channels must have one number for each stage, got {self.units} and {self.channels}"
            )
        before = self.stem_channels
        for channels in self.channels:
            if channels <= before or channels % (4 * self.groups) or (channels - before) % self.groups:
                raise ValueError(
                    f"channels must increase from stem_channels={self.stem_channels} on, each be a multiple of 4 times "
                    f"groups={self.groups} and differ from the one before by a multiple of groups, got {self.channels}"
                )
            before = channels
        check_rate("drop_rate", self.drop_rate)


# Architecture options of `create_model`.
OPTIONS = ("drop_rate",)


class ShuffleNet(Classifier):
    """ShuffleNet v1 without SE (Zhang et al. 2017, arXiv 1707.01083).

    Children are named as in torchvision's residual networks: `conv1`, `bn1`, `layer1` to `layer3`, `fc`.

    Args:
        spec: the network's hyperparameters.
        num_classes: number of classes; with 0, `forward` returns the pooled features.
        in_channels: channels of the images.

    Raises:
        ValueError: `num_classes` below 0 or `in_channels` below 1.
    """

    def __init__(self, spec: ShuffleNetSpec | None = None, *, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__(in_channels)
        self.spec = spec = spec or ShuffleNetSpec()
        self.conv1 = convolution(in_channels, spec.stem_channels, 3, 2)
        self.bn1 = nn.BatchNorm2d(spec.stem_channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.feature_info = [{"num_chs": spec.stem_channels, "reduction": 2, "module": "relu"}]
        for index, stage in enumerate(_stages(spec)):
            self._add_stage(stage, spec.channels[index], 8 << index)
        self._add_head(spec.channels[-1], num_classes, spec.drop_rate)

    def forward_features(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N F h w"]:
        """Map (N, in_channels, H, W) to (N, num_features, h, w), the last map before pooling."""
        return self._run_stages(self.maxpool(self.relu(self.bn1(self.conv1(x)))))


class ShuffleUnit(nn.Module):
    """`relu(branch(x) + x)`; with stride 2, `relu(cat(branch(x), pool(x)))` with an average pool.

    The branch: grouped 1x1 convolution, batch norm, ReLU, shuffle; depthwise 3x3 convolution, batch norm; grouped 1x1
    convolution, batch norm (Zhang et al. 2017, Figure 2). The shuffle spreads each group's channels over all groups.

    Args:
        in_channels, out_channels: channels of the unit, which has stride 2 where they differ.
        groups: groups of the last 1x1 convolution and of the shuffle.
        first_groups: groups of the first 1x1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int, first_groups: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.stride = 1 if in_channels == out_channels else 2
        width = out_channels // 4
        branch_channels = out_channels if self.stride == 1 else out_channels - in_channels
        self.conv1 = convolution(in_channels, width, 1, groups=first_groups)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shuffle = nn.ChannelShuffle(groups)
        self.conv2 = convolution(width, width, 3, self.stride, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, branch_channels, 1, groups=groups)
        self.bn3 = nn.BatchNorm2d(branch_channels)
        self.pool = nn.AvgPool2d(3, 2, padding=1) if self.stride == 2 else None

    def forward(self, x: Float[Tensor, "N C_in H W"]) -> Float[Tensor, "N C_out h w"]:
        """Map (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        y = self.shuffle(self.relu(self.bn1(self.conv1(x))))
        y = self.conv3(self.bn2(self.conv2(y)))
        if self.pool is not None:
            return self.relu(torch.cat((self.bn3(y), self.pool(x)), 1))  # type: ignore[no-any-return]
        watched = type(self.relu) is not nn.ReLU or is_watched(self.relu)
        fused = None if watched else sum_relu(self.bn3, y, x)
        return self.relu(self.bn3(y) + x) if fused is None else fused


def _stages(spec: ShuffleNetSpec) -> Iterator[nn.Sequential]:
    in_channels = spec.stem_channels
    for index, units in enumerate(spec.units):
        stage = nn.Sequential()
        for number in range(units):
            ungrouped = index == 0 and number == 0
            stage.append(ShuffleUnit(in_channels, spec.channels[index], spec.groups, 1 if ungrouped else spec.groups))
            in_channels = spec.channels[index]
        yield stage
