"""Metrics accumulated on the device of the logits: no batch waits for the device."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch
from torch import Tensor

from senet.data import Loader

__all__ = ["LogitMetrics", "batches_between_reads", "label_ranks"]

Result = TypeVar("Result")


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


class LogitMetrics(ABC, Generic[Result]):
    """What is measured of the logits of all images of a loader, and the first image with non-finite logits.

    Args:
        classes: number of classes in the data, K.

    Attributes:
        logits: (L,), logits of the first image with non-finite logits.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._started = False

    def watch(self, logits: Tensor, first: int) -> None:
        """Record the first image with non-finite logits.

        Args:
            logits: (N, L), L the number of classes of the network; always on the same device.
            first: number of the first image of the batch, from 0.
        """
        if not self._started:
            self._first_bad = logits.new_zeros((), dtype=torch.long) - 1
            self.logits = logits.new_zeros(logits.shape[1])
            self._start(logits)
            self._started = True
        bad = ~logits.isfinite().all(1)
        row = bad.byte().argmax()  # the first of them
        is_first = bad.any() & (self._first_bad < 0)
        self._first_bad = torch.where(is_first, row + first, self._first_bad)
        self.logits = torch.where(is_first, logits.index_select(0, row[None])[0], self.logits)

    def first_bad(self) -> int | None:
        """Wait for the device; return the number of the first image with non-finite logits, or None."""
        number = int(self._first_bad) if self._started else -1
        return None if number < 0 else number

    def sums(self) -> Tensor:
        """Wait for the device; return the sums on the host, (S,), float64: those of several processes are added."""
        return self._sums().cpu() if self._started else torch.zeros(self._size(), dtype=torch.float64)

    @abstractmethod
    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            logits: (N, L), already passed to `watch`; L is the number of classes or more.
            labels: (N, ...), on the same device.
        """

    @abstractmethod
    def result(self, sums: Tensor, loader: Loader) -> Result:
        """Return the result of `sums`, (S,), for the images of a loader.

        Raises:
            DataError: no image was added.
        """

    @abstractmethod
    def _start(self, logits: Tensor) -> None:
        """Allocate what is summed, on the device of the logits."""

    @abstractmethod
    def _sums(self) -> Tensor:
        """Return the sums on the device, (S,), float64."""

    @abstractmethod
    def _size(self) -> int:
        """Return the number of sums, S."""
