"""Cross entropy, with label smoothing, class weights, mixup and CutMix."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from senet.tasks.classification.mixing import Mixing
from senet.tasks.objective import Objective, ObjectiveContext

__all__ = ["CrossEntropy"]


class CrossEntropy(Objective):
    """Cross entropy of one class for each image. Counts wrong predictions.

    Args:
        context: of the run.
    """

    def __init__(self, context: ObjectiveContext) -> None:
        settings, classes, labels = context.settings, context.classes, context.labels
        self._dtype = context.dtype
        self._mixing = Mixing(settings, classes) if settings.mixup or settings.cutmix else None
        self._smoothing = 0.0 if self._mixing is not None else settings.label_smoothing  # mixed targets include it
        self._weights: Tensor | None = None  # (K,), of the loss of each class, on the device
        if settings.class_weights == "balanced":
            counts = torch.bincount(labels, minlength=classes).clamp(min=1)
            self._host_weights = (len(labels) / (len(counts) * counts)).to(context.dtype)
            self._weights = self._host_weights.to(context.device)
        self.draws_on_host = self._mixing is not None
        self.weighs = self._weights is not None and self._mixing is None

    def targets(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return the images and (N,), their classes; mixed images, and (N, K), the proportion of each class."""
        return (images, labels) if self._mixing is None else self._mixing(images, labels, seed)

    def weight(self, labels: Tensor) -> Tensor:
        """Return (), the sum of the class weights of labels (N,)."""
        assert self._weights is not None
        return (self._host_weights if labels.device.type == "cpu" else self._weights)[labels].sum()

    def loss(
        self, forward: Callable[..., Any], images: Tensor, targets: Tensor, labels: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the sum of the cross entropies in nats, and the number of wrong predictions."""
        logits = forward(images).to(self._dtype)
        loss = F.cross_entropy(logits, targets, self._weights, label_smoothing=self._smoothing, reduction="sum")
        return loss, ((logits.detach().argmax(1) != labels).sum(),)
