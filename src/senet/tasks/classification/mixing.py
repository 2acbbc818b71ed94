"""Mixup and CutMix of a batch: timm's, determined by a seed."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from senet.tasks.objective import ObjectiveSettings

__all__ = ["Mixing"]


class Mixing:
    """Mixup or CutMix, by the settings of a recipe.

    Args:
        settings: with `mixup`, `cutmix` and `label_smoothing`.
        classes: of the network.
    """

    def __init__(self, settings: ObjectiveSettings, classes: int) -> None:
        from timm.data import Mixup

        self._classes, self._smoothing = classes, settings.label_smoothing
        self._mixup: Any = Mixup(
            settings.mixup, settings.cutmix, label_smoothing=settings.label_smoothing, num_classes=classes
        )

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Mix images in pairs, in place; the last of an odd number is not mixed.

        Args:
            images: (N, C, S, S).
            labels: (N,).
            seed: determines the pairs and proportions.

        Returns:
            The images, and (N, classes), the proportion of each class.
        """
        pairs = len(labels) // 2 * 2
        targets = self._plain(labels).to(images.dtype)
        before = np.random.get_state()  # timm draws from NumPy's global generator
        np.random.seed(seed % 2**32)
        try:
            if pairs:
                images[:pairs], targets[:pairs] = self._mixup(images[:pairs], labels[:pairs])
        finally:
            np.random.set_state(before)
        return images, targets

    def _plain(self, labels: Tensor) -> Tensor:
        off = self._smoothing / self._classes
        targets = torch.full((len(labels), self._classes), off, device=labels.device)
        return targets.scatter_(1, labels[:, None], 1 - self._smoothing + off)
