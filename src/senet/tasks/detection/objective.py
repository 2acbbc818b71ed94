"""The losses of torchvision's detectors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from senet.data.boxes import pack
from senet.nn.held_statistics import norms_with_statistics
from senet.tasks.detection.network import detection_losses
from senet.tasks.objective import Objective, ObjectiveContext
from senet.utils.modes import training_mode

__all__ = ["PARTS", "BoxLoss"]

# The losses of Faster R-CNN and of RetinaNet by the name of the counter.
PARTS = {
    "class_loss": ("loss_classifier", "classification"),
    "box_loss": ("loss_box_reg", "bbox_regression"),
    "objectness_loss": ("loss_objectness",),
    "proposal_loss": ("loss_rpn_box_reg",),
}


class BoxLoss(Objective):
    """The sum of a detector's losses; its counters are the parts.

    torchvision divides each part by a number of boxes or anchors of the batch, and samples them at random. The loss of
    a batch is therefore not the mean of the losses of its images: several processes, or the parts of a batch, do not
    add up to the joint batch exactly.

    Args:
        context: of the run.
    """

    obstacle = "the shapes of a detector's tensors depend on the boxes that it finds"

    def __init__(self, context: ObjectiveContext) -> None:
        self._model, self._dtype = context.model, context.dtype

    @contextmanager
    def probing(self, model: nn.Module) -> Iterator[None]:
        """Set training mode within a block, with batch norms in evaluation: a detector has losses in training only."""
        with training_mode(model):
            for norm in norms_with_statistics(model):
                norm.training = False
            yield

    def probe(self, forward: Callable[..., Any], images: Tensor) -> Tensor:
        """Return (), the loss of images (N, C, H, W) with one box each."""
        height, width = images.shape[2:]
        box = torch.tensor([[0.0, 0.0, width / 2, height / 2]])
        size = (height, width)
        target = pack(0, size, size, box, torch.zeros(1).long(), torch.zeros(1).bool(), 1).to(images.device)
        losses = detection_losses(self._model, images, target.expand(len(images), -1, -1), forward=forward)
        return torch.stack(list(losses.values())).sum()

    def loss(
        self, forward: Callable[..., Any], images: Tensor, targets: Tensor, labels: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the sum of the losses, and each part, times the number of images."""
        losses = detection_losses(self._model, images, targets, forward=forward)
        count = len(images)
        values = {name: value.to(self._dtype) * count for name, value in losses.items()}
        zero = images.new_zeros((), dtype=self._dtype)
        parts = (sum((values[name].detach() for name in names if name in values), zero) for names in PARTS.values())
        return torch.stack(list(values.values())).sum(), tuple(parts)
