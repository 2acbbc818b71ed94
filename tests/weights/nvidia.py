"""NVIDIA's ResNets (DeepLearningExamples, PyTorch/Classification/ConvNets) with few units, written independently."""

import torch
from torch import Tensor, nn


class Gate(nn.Module):
    """Gates of NVIDIA's SE: 16 hidden units in every block; files of before June 2020 have linear layers."""

    def __init__(self, channels: int, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.squeeze = nn.Linear(channels, 16) if linear else nn.Conv2d(channels, 16, 1)
        self.expand = nn.Linear(16, channels) if linear else nn.Conv2d(16, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        z = x.mean((2, 3)) if self.linear else x.mean((2, 3), keepdim=True)
        return torch.sigmoid(self.expand(torch.relu(self.squeeze(z)))).view(*x.shape[:2], 1, 1)


class Unit(nn.Module):
    def __init__(
        self, inputs: int, width: int, expansion: int, stride: int, groups: int, se: bool, linear: bool
    ) -> None:
        super().__init__()
        outputs = width * expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.squeeze = Gate(outputs, linear) if se else None

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y)))))
        return torch.relu(skip + y if self.squeeze is None else torch.addcmul(skip, y, self.squeeze(y)))


class NvidiaResNet(nn.Module):
    """Stages in `layers`, or in `layer1` to `layer4` as in files of before June 2020."""

    def __init__(self, units: tuple[int, ...], wide: bool, se: bool, old: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        expansion, groups, channels = (2, 32, 64) if wide else (4, 1, 64)
        stages = []
        for index, count in enumerate(units):
            width, stage = (128 if wide else 64) << index, nn.Sequential()
            for number in range(count):
                stride = 2 if index and not number else 1
                stage.append(Unit(channels, width, expansion, stride, groups, se, old))
                channels = width * expansion
            stages.append(stage)
        self.old = old
        if old:
            for index, stage in enumerate(stages):
                self.add_module(f"layer{index + 1}", stage)
        else:
            self.layers = nn.Sequential(*stages)
        self.fc = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        stages = [getattr(self, f"layer{index}") for index in range(1, 5)] if self.old else self.layers
        for stage in stages:
            x = stage(x)
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]
