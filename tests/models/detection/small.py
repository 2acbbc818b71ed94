"""Small detectors, images and labels."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from senet.models.table import CATALOGUE

SIZES: dict[str, Any] = {"min_size": 64, "max_size": 96}
SMALL: dict[str, Any] = {**SIZES, "num_classes": 3, "fpn_channels": 8, "box_channels": 16}


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, 64, 80, generator=generator), torch.rand(3, 64, 64, generator=generator)]


def labels() -> list[dict[str, Tensor]]:
    boxes = [[[4.0, 5.0, 30.0, 40.0]], [[4.0, 5.0, 60.0, 40.0], [10.0, 10.0, 20.0, 20.0]]]
    return [{"boxes": torch.tensor(one), "labels": torch.arange(1, len(one) + 1)} for one in boxes]


def losses_of(model: nn.Module) -> dict[str, Tensor]:
    """Losses of a training step, whose samples of anchors and proposals are drawn from one seed."""
    torch.manual_seed(0)
    return model.train()(images(), labels())


@contextmanager
def shallow_resnet18() -> Iterator[None]:
    """Build `resnet18` with one unit in each stage, as `of_torchvision` does."""
    row = CATALOGUE["resnet18"]
    with patch.dict(CATALOGUE, resnet18=replace(row, spec=replace(row.spec, units=(1, 1, 1, 1)))):
        yield


def of_torchvision(kind: str, *, frozen: bool) -> nn.Module:
    """torchvision's own detector on its ResNet, with one unit in each stage, and the channels of `SMALL`."""
    network = ResNet(BasicBlock, [1, 1, 1, 1], norm_layer=FrozenBatchNorm2d if frozen else None)
    stages = [f"layer{number}" for number in ((1, 2, 3, 4) if kind == "faster_rcnn" else (2, 3, 4))]
    layers = {stage: str(index) for index, stage in enumerate(stages)}
    channels = [64, 128, 256, 512][-len(stages) :]
    if kind == "faster_rcnn":
        return FasterRCNN(
            BackboneWithFPN(network, layers, channels, 8),
            **SIZES,
            box_head=TwoMLPHead(8 * 7**2, 16),
            box_predictor=FastRCNNPredictor(16, 4),
        )
    return RetinaNet(BackboneWithFPN(network, layers, channels, 8, LastLevelP6P7(8, 8)), 4, **SIZES)
