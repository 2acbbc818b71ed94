"""Losses and detections of batches against torchvision's, called with the images one by one."""

from typing import Any

import pytest
import torch
from torch import Tensor

from senet import create_model
from senet.data.boxes import pack
from senet.tasks.detection.network import detect, detection_losses
from tests.helpers import shallow_resnet20
from tests.models.detection.small import SMALL, images, labels

ROWS = 4


def batch() -> tuple[Tensor, Tensor]:
    """The images padded to one size, and their targets with a crowd box each; the second was twice as large."""
    pixels = torch.full((2, 3, 64, 96), 0.5)
    targets = []
    for index, (image, label) in enumerate(zip(images(), labels(), strict=True)):
        height, width = image.shape[1:]
        pixels[index, :, :height, :width] = image
        boxes = torch.cat([label["boxes"], torch.tensor([[0.0, 0.0, 64.0, 64.0]])])
        classes = torch.cat([label["labels"] - 1, torch.tensor([0])])
        crowd = torch.arange(len(boxes)) == len(boxes) - 1
        original = (height * (1 + index), width * (1 + index))
        targets.append(pack(index, (height, width), original, boxes, classes, crowd, ROWS))
    return pixels, torch.stack(targets)


@pytest.fixture(params=["faster_rcnn", "retinanet"])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    with shallow_resnet20():
        found: Any = create_model(f"{request.param}:se_resnet20", **SMALL)
    if request.param == "retinanet":
        found.score_thresh = 0.005  # untrained, it is certain of nothing
    return found


def test_losses_of_a_batch(model: Any) -> None:
    torch.manual_seed(1)
    found = detection_losses(model.train(), *batch())
    torch.manual_seed(1)
    with model.transform.keeping_size():  # to resize an image in training draws a number
        expected = model(images(), labels())
    assert found == expected
    assert sum(found.values()).isfinite()  # type: ignore[union-attr]


def test_detections_do_not_depend_on_the_batch(model: Any) -> None:
    """torchvision's do: it pads a batch to its largest image."""
    with torch.no_grad():
        found = detect(model.eval(), *batch())
        expected = [model([image])[0] for image in images()]
        together = model(images())
    assert any(not torch.equal(one["scores"], other["scores"]) for one, other in zip(expected, together, strict=True))
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        kept = other["labels"] > 0
        assert kept.any()
        assert torch.equal(one.classes, other["labels"][kept] - 1)
        assert torch.equal(one.scores, other["scores"][kept])
        assert torch.equal(one.boxes, other["boxes"][kept] * (1 + index))


def test_images_of_any_size_are_not_resized(model: Any) -> None:
    sizes = []
    model.backbone.register_forward_pre_hook(lambda _, given: sizes.append(tuple(given[0].shape)))
    pixels, targets = torch.rand(1, 3, 32, 32), pack(0, (32, 32), (32, 32), *_none(), ROWS)[None]
    with torch.no_grad():
        detect(model.eval(), pixels, targets)
        model(list(pixels))
    assert sizes == [(1, 3, 32, 32), (1, 3, 64, 64)]


def _none() -> tuple[Tensor, Tensor, Tensor]:
    return torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool)
