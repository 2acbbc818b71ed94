"""Top-1 and top-5 error of classifiers, in total and by class."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from senet.data import Loader
from senet.evaluation.metrics import LogitMetrics, label_ranks
from senet.utils.errors import DataError

__all__ = ["ClassResult", "ClassificationMetrics", "Evaluation"]


@dataclass(frozen=True)
class ClassResult:
    """Results of one class: name, number of images, top-1 and top-5 error in percent."""

    name: str
    images: int
    top1_error: float
    top5_error: float


@dataclass(frozen=True)
class Evaluation:
    """Results on a data set.

    Attributes:
        top1_error: percent of images whose label does not have the largest logit.
        top5_error: percent of images whose label is not among the five largest logits; 0 for five classes or fewer.
        loss: mean cross entropy in nats.
        images: number of evaluated images.
        classes: results by class, for classes that have images.
        skipped: names of images that could not be read.
        confusion: (K, K), number of images by class (rows) and prediction (columns); None if not counted.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>> found = senet.evaluate(model, "photos", confusion=True)
        >>> found.confusion.shape, [one.name for one in found.classes]
        ((2, 2), ['cat', 'dog'])
    """

    top1_error: float
    top5_error: float
    loss: float
    images: int
    classes: list[ClassResult]
    skipped: list[str]
    confusion: NDArray[np.int64] | None = None


class ClassificationMetrics(LogitMetrics[Evaluation]):
    """Cross entropy, and top-1 and top-5 errors by class.

    The sums are (3K + 1,): images, top-1 errors and top-5 errors by class, and the summed cross entropy. float64
    represents counts of images exactly. With the confusion matrix, (K, K) sums follow.

    Args:
        classes: number of classes in the data, K.
        confusion: count the confusion matrix.
    """

    def __init__(self, classes: int, *, confusion: bool = False) -> None:
        super().__init__(classes)
        self._cells = classes**2 if confusion else 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch with class indices (N,)."""
        self._loss += F.cross_entropy(logits.double(), labels, reduction="sum")
        ranks = label_ranks(logits, labels)
        wrong = torch.stack([ranks >= least for least in (0, 1, 5)]).long()
        self._counts.index_add_(1, labels, wrong)
        if self._cells:
            # A network may have more logits than the data have classes: such a prediction has no cell.
            found = logits.argmax(1)
            cells = labels * self._classes + found.clamp(max=self._classes - 1)
            self._confusion.index_add_(0, cells, (found < self._classes).long())

    def result(self, sums: Tensor, loader: Loader) -> Evaluation:
        """Return the errors in percent, and the mean cross entropy in nats."""
        of_classes = 3 * self._classes
        counts, loss = sums[:of_classes].long().view(3, -1), float(sums[of_classes])
        images, top1, top5 = counts.sum(1).tolist()
        if not images:
            raise DataError(f"{loader.data.spec} has no readable image")
        by_class = [
            ClassResult(name, n, 100 * one / n, 100 * five / n)
            for name, (n, one, five) in zip(loader.data.classes, counts.T.tolist(), strict=True)
            if n
        ]
        errors = 100 * top1 / images, 100 * top5 / images
        cells = sums[of_classes + 1 :].long()
        confusion = cells.view(self._classes, -1).numpy() if self._cells else None
        return Evaluation(*errors, loss / images, images, by_class, list(loader.skipped), confusion)

    def _start(self, logits: Tensor) -> None:
        # By class: images, top-1 errors, top-5 errors.
        self._counts = logits.new_zeros((3, self._classes), dtype=torch.long)
        self._loss = logits.new_zeros((), dtype=torch.float64)
        self._confusion = logits.new_zeros(self._cells, dtype=torch.long)

    def _sums(self) -> Tensor:
        return torch.cat((self._counts.flatten().double(), self._loss[None], self._confusion.double()))

    def _size(self) -> int:
        return 3 * self._classes + 1 + self._cells
