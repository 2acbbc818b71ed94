"""A detector, images with boxes and a recipe so small that a step takes a fraction of a second."""

from typing import Any

import numpy as np
import torch
from PIL import Image

import senet
from senet.data import BoxData
from senet.data.boxes import ImageBoxes
from senet.recipes import Recipe, load_recipe
from tests.images import picture

CLASSES = ["dark", "bright"]
NETWORK = "faster_rcnn:se_resnet20"
OPTIONS = {"fpn_channels": 8, "box_channels": 16, "anchor_sizes": (16, 24, 32, 48)}


def size_of(index: int) -> tuple[int, int]:
    """Height and width: two of three images are wide."""
    return (40, 56) if index % 3 else (56, 40)


def boxes_of(index: int) -> list[list[int]]:
    """One or two boxes, the second of another class."""
    return [[4, 4, 24, 22], [20, 16, 36, 38]][: 1 + index % 2]


class Scenes:
    """A source of noise with a dark and a bright rectangle."""

    def read(self, index: int) -> Image.Image:
        height, width = size_of(index)
        pixels = np.array(picture(index, width, height))
        for number, (x1, y1, x2, y2) in enumerate(boxes_of(index)):
            pixels[y1:y2, x1:x2] = 250 * number
        return Image.fromarray(pixels)

    def name(self, index: int) -> str:
        return f"scene {index}"


def annotations(index: int) -> ImageBoxes:
    boxes = np.array(boxes_of(index), dtype=np.float32)
    sides = boxes[:, 2:] - boxes[:, :2]
    return ImageBoxes(
        image_id=100 + index,
        size=size_of(index),
        boxes=boxes,
        categories=np.arange(len(boxes)),
        areas=sides.prod(1),
        crowd=np.zeros(len(boxes), dtype=bool),
    )


def scenes(count: int = 7) -> BoxData:
    return BoxData("scenes", Scenes(), [annotations(index) for index in range(count)], CLASSES)


def splits() -> tuple[BoxData, BoxData]:
    data = scenes()
    return data, data.subset(np.arange(1, 5))  # type: ignore[return-value]


def recipe(*settings: str) -> Recipe:
    """Five steps of two images, in epochs of three."""
    quick = ("iterations=5", "milestones=[4]", "warmup=1", "batch=2", "resize=40", "max_size=64", "scales=[32,40]")
    options = [f"network.{key}={list(value) if isinstance(value, tuple) else value}" for key, value in OPTIONS.items()]
    return load_recipe("detection-small", ["device=cpu", "workers=0", "lr=0.01", *quick, *options, *settings])


def detector(network: str = NETWORK, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model: Any = senet.create_model(network, num_classes=2, min_size=40, max_size=64, **OPTIONS)
    model.pretrained_cfg["label_names"] = CLASSES
    return model
