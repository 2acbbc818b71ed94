"""Losses of multi-label networks: each label is a decision of its own."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from senet.tasks.objective import Objective, ObjectiveContext

__all__ = ["BinaryLoss", "asymmetric_loss"]

_LOG_FLOOR = 1e-8


class BinaryLoss(Objective):
    """Mean over the labels of binary cross entropy or asymmetric loss. Counts the share of wrong decisions at 0.5.

    Args:
        context: of the run.
    """

    def __init__(self, context: ObjectiveContext) -> None:
        self._dtype = context.dtype
        self._function = asymmetric_loss if context.settings.loss == "asymmetric" else _cross_entropy

    def loss(
        self, forward: Callable[..., Any], images: Tensor, targets: Tensor, labels: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the sum over images of the loss; and of the share of labels that are decided wrongly."""
        logits = forward(images).to(self._dtype)
        loss = self._function(logits, targets.to(self._dtype)).mean(1).sum()
        wrong = ((logits.detach() > 0) != labels.bool()).to(self._dtype).mean(1).sum()
        return loss, (wrong,)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def asymmetric_loss(
    logits: Tensor, targets: Tensor, positive: float = 1.0, negative: float = 4.0, margin: float = 0.05
) -> Tensor:
    """Return the asymmetric loss of each label (Ben-Baruch et al., arXiv 2009.14119, equations 4 to 7).

    Args:
        logits: (N, K).
        targets: (N, K), 0 or 1.
        positive, negative: exponents of the focus, for labels that an image has and does not have.
        margin: probability that is subtracted for labels that an image does not have.

    Returns:
        (N, K).
    """
    own = torch.sigmoid(logits)
    other = (1 - own + margin).clamp(max=1)
    log = targets * own.clamp(min=_LOG_FLOOR).log() + (1 - targets) * other.clamp(min=_LOG_FLOOR).log()
    certain = targets * own + (1 - targets) * other
    return -log * (1 - certain) ** (targets * positive + (1 - targets) * negative)
