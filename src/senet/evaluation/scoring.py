"""Sums over the images of an evaluation, on the device of the logits: no batch waits for the device."""

import torch
import torch.nn.functional as F
from torch import Tensor

from senet.evaluation.logits import label_ranks

__all__ = ["Scores", "batches_between_reads"]


def batches_between_reads(device: torch.device) -> int:
    """Batches after which an evaluation looks for logits that are not finite: reading waits for a GPU."""
    return 32 if device.type == "cuda" else 1


class Scores:
    """Loss, errors by class, and the first image whose logits are not finite.

    Args:
        classes: number of them in the data, K.

    Attributes:
        logits: (L,), of the first image whose logits are not finite; of no image otherwise.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._started = False

    def _start(self, logits: Tensor) -> None:
        if not self._started:
            new = logits.new_zeros
            # By class: images, of which the first is wrong, of which the first five are wrong.
            self._counts = new((3, self._classes), dtype=torch.long)
            self._loss = new((), dtype=torch.float64)
            self._place = new((), dtype=torch.long) - 1
            self.logits = new(logits.shape[1])
            self._started = True

    def watch(self, logits: Tensor, first: int) -> None:
        """Note the first image whose logits are not finite.

        Args:
            logits: (N, L), L the classes of the network; always on one device.
            first: number of the first image, from 0.
        """
        self._start(logits)
        bad = ~logits.isfinite().all(1)
        row = bad.byte().argmax()  # the first
        here = bad.any() & (self._place < 0)
        self._place = torch.where(here, row + first, self._place)
        self.logits = torch.where(here, logits.index_select(0, row[None])[0], self.logits)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            logits: (N, L), which `watch` has seen; L is K or more.
            labels: (N,), class indices, on the same device.
        """
        self._loss += F.cross_entropy(logits.double(), labels, reduction="sum")
        ranks = label_ranks(logits, labels)
        wrong = torch.stack([ranks >= least for least in (0, 1, 5)]).long()
        self._counts.index_add_(1, labels, wrong)

    def first_bad(self) -> int | None:
        """Wait for the device: the number of the first image whose logits are not finite; None if there is none."""
        place = int(self._place) if self._started else -1
        return None if place < 0 else place

    def sums(self) -> Tensor:
        """Wait for the device: (3K + 1,) in float64 on the host; counts of images, top-1 and top-5 errors, the loss."""
        if not self._started:
            return torch.zeros(3 * self._classes + 1, dtype=torch.float64)
        return torch.cat((self._counts.flatten().double(), self._loss[None])).cpu()
