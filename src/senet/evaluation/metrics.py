"""Metrics of classification, accumulated on the device of the logits: no batch waits for the device."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ClassificationMetrics", "batches_between_reads", "label_ranks"]


def label_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the rank of each label: the number of classes with a larger logit.

    A tie goes to the class with the lower index, as in `torch.argmax`.

    Args:
        logits: (N, K), finite.
        labels: (N,), class indices.

    Returns:
        (N,), 0 if the label has the largest logit. An image is a top-k error if its rank is k or more.
    """
    own = logits.gather(1, labels[:, None])
    lower = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return ((logits > own) | ((logits == own) & lower)).sum(1)


def batches_between_reads(device: torch.device) -> int:
    """Return after how many batches an evaluation looks for non-finite logits: each read waits for a GPU."""
    return 32 if device.type == "cuda" else 1


class ClassificationMetrics:
    """Cross entropy, top-1 and top-5 errors by class, and the first image with non-finite logits.

    Args:
        classes: number of classes in the data, K.

    Attributes:
        logits: (L,), logits of the first image with non-finite logits.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._started = False

    def _start(self, logits: Tensor) -> None:
        if not self._started:
            new = logits.new_zeros
            # By class: images, top-1 errors, top-5 errors.
            self._counts = new((3, self._classes), dtype=torch.long)
            self._loss = new((), dtype=torch.float64)
            self._first_bad = new((), dtype=torch.long) - 1
            self.logits = new(logits.shape[1])
            self._started = True

    def watch(self, logits: Tensor, first: int) -> None:
        """Record the first image with non-finite logits.

        Args:
            logits: (N, L), L the number of classes of the network; always on the same device.
            first: number of the first image of the batch, from 0.
        """
        self._start(logits)
        bad = ~logits.isfinite().all(1)
        row = bad.byte().argmax()  # the first of them
        is_first = bad.any() & (self._first_bad < 0)
        self._first_bad = torch.where(is_first, row + first, self._first_bad)
        self.logits = torch.where(is_first, logits.index_select(0, row[None])[0], self.logits)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            logits: (N, L), already passed to `watch`; L is K or more.
            labels: (N,), class indices, on the same device.
        """
        self._loss += F.cross_entropy(logits.double(), labels, reduction="sum")
        ranks = label_ranks(logits, labels)
        wrong = torch.stack([ranks >= least for least in (0, 1, 5)]).long()
        self._counts.index_add_(1, labels, wrong)

    def first_bad(self) -> int | None:
        """Wait for the device; return the number of the first image with non-finite logits, or None."""
        number = int(self._first_bad) if self._started else -1
        return None if number < 0 else number

    def sums(self) -> Tensor:
        """Wait for the device; return the sums on the host.

        Returns:
            (3K + 1,), float64: images, top-1 errors and top-5 errors by class, and the summed cross entropy.
        """
        if not self._started:
            return torch.zeros(3 * self._classes + 1, dtype=torch.float64)
        return torch.cat((self._counts.flatten().double(), self._loss[None])).cpu()
