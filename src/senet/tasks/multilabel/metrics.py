"""Average precision and F1 of multi-label networks, in total and by label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from senet.data import Loader
from senet.data.loading.distributed import shard_batch
from senet.evaluation.metrics import LogitMetrics
from senet.utils.errors import DataError

__all__ = [
    "LabelResult",
    "MultiLabelEvaluation",
    "MultiLabelMetrics",
    "average_precision",
    "best_threshold",
    "check_labels",
]

_Scores = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LabelResult:
    """Results of a label.

    Attributes:
        name: of the label.
        images: number of images that have it.
        ap: average precision in percent.
        f1: F1 at a probability of 0.5, in percent.
        threshold: probability of the highest F1 on these images.
    """

    name: str
    images: int
    ap: float
    f1: float
    threshold: float


@dataclass(frozen=True, kw_only=True)
class MultiLabelEvaluation:
    """Results on a data set.

    Attributes:
        map: mean over the labels of the average precision, in percent.
        f1: F1 over all decisions at a probability of 0.5, in percent.
        stored_f1: F1 at the thresholds that the network's file stores; -1 if it stores none.
        label_error: percent of wrong decisions at 0.5.
        loss: mean binary cross entropy in nats.
        images: number of evaluated images.
        classes: results by label, for labels that images have.
        thresholds: by label, the probability of the highest F1 on these images; 0.5 for a label without images.
        skipped: names of images that could not be read.

    Examples:
        >>> recipe = senet.load_recipe("digits", ["task='multilabel'", "epochs=1", "batch=4", "workers=0"])
        >>> run = senet.train("resnet20", "csv:tags", recipe, "runs/tags")
        >>> found = senet.evaluate(senet.load(run.output / "last.safetensors"), "csv:tags")
        >>> found.images, [one.name for one in found.classes]
        (4, ['red', 'round'])
    """

    map: float
    f1: float
    label_error: float
    loss: float
    images: int
    classes: list[LabelResult]
    thresholds: list[float]
    skipped: list[str]
    stored_f1: float = -1.0


class MultiLabelMetrics(LogitMetrics[MultiLabelEvaluation]):
    """All probabilities and labels, since average precision has no sum over batches.

    Each image has a row of its own, in all processes: `sums` of processes that evaluate different images add up to the
    rows of all, exactly.

    Args:
        loader: of the images.
        stored: (K,), the thresholds that the network's file stores; None if it stores none.
    """

    def __init__(self, loader: Loader, stored: Sequence[float] | None = None) -> None:
        super().__init__(len(loader.data.classes))
        self._loader, self._first, self._stored = loader, 0, stored

    def watch(self, logits: Tensor, first: int) -> None:
        """Record the first image with non-finite logits, and the place of the batch."""
        super().watch(logits, first)
        self._first = first

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch with labels (N, K)."""
        loader, classes = self._loader, self._classes
        images = min(loader.batch, loader.images - self._first)
        # Without the images that could not be read, a batch has fewer rows.
        places = shard_batch(images, loader.rank, loader.world_size)[: len(logits)].to(logits.device) + self._first
        logits = logits[:, :classes].double()
        self._rows[0, places], self._rows[1, places] = logits.sigmoid(), labels.double()
        self._present[places] = 1.0
        self._loss += F.binary_cross_entropy_with_logits(logits, labels.double(), reduction="sum") / classes

    def result(self, sums: Tensor, loader: Loader) -> MultiLabelEvaluation:
        """Return average precisions, F1 and the cross entropy."""
        rows, rest = sums[: self._rows_size()].view(2, -1, self._classes), sums[self._rows_size() :]
        present = rest[:-1].bool()
        images = int(present.sum())
        if not images:
            raise DataError(f"{loader.data.spec} has no readable image")
        scores, labels = rows[0, present].numpy(), rows[1, present].numpy()
        check_labels(labels, loader.data.spec)
        decided = scores > 0.5
        found, thresholds = [], []
        for number, name in enumerate(loader.data.classes):
            own, has = scores[:, number], labels[:, number]
            count = int(has.sum())
            threshold = best_threshold(own, has) if count else 0.5
            thresholds.append(threshold)
            if count:
                ap, f1 = 100 * average_precision(own, has), _f1(decided[:, number], has)
                found.append(LabelResult(name=name, images=count, ap=ap, f1=f1, threshold=threshold))
        return MultiLabelEvaluation(
            map=float(np.mean([label.ap for label in found])),
            f1=_f1(decided, labels),
            label_error=float(100 * (decided != labels.astype(bool)).mean()),
            loss=float(rest[-1]) / images,
            images=images,
            classes=found,
            thresholds=thresholds,
            skipped=list(loader.skipped),
            stored_f1=-1.0 if self._stored is None else _f1(scores >= np.array(self._stored), labels),
        )

    def _start(self, logits: Tensor) -> None:
        zeros, images = logits.new_zeros, self._loader.images
        self._rows = zeros((2, images, self._classes), dtype=torch.float64)
        self._present, self._loss = zeros(images, dtype=torch.float64), zeros((), dtype=torch.float64)

    def _sums(self) -> Tensor:
        return torch.cat((self._rows.flatten(), self._present, self._loss[None]))

    def _rows_size(self) -> int:
        return 2 * self._loader.images * self._classes

    def _size(self) -> int:
        return self._rows_size() + self._loader.images + 1


def check_labels(labels: NDArray[Any], spec: str) -> None:
    """Check that some images have a label.

    Args:
        labels: (N, K), not 0 where an image has a label.
        spec: of the data.

    Raises:
        DataError: none has one.
    """
    if not labels.any():
        raise DataError(f"no image of {spec} has a label, and precision is not defined; add some")


def average_precision(scores: _Scores, labels: _Scores) -> float:
    """Return the sum over thresholds of precision times the increase of recall, 0 to 1; equal scores are one threshold.

    Args:
        scores: (N,).
        labels: (N,), 0 or 1, at least one 1.
    """
    _, hits, chosen = _cuts(scores, labels)
    recall = hits / hits[-1]
    return float((np.diff(recall, prepend=0.0) * hits / chosen).sum())


def best_threshold(scores: _Scores, labels: _Scores) -> float:
    """Return the score of the highest F1, the highest of several: halfway to the next lower score.

    Args:
        scores: (N,).
        labels: (N,), 0 or 1, at least one 1.
    """
    cuts, hits, chosen = _cuts(scores, labels)
    best = int((2 * hits / (chosen + hits[-1])).argmax())
    below = cuts[best + 1] if best + 1 < len(cuts) else cuts[best]
    return float((cuts[best] + below) / 2)


def _cuts(scores: _Scores, labels: _Scores) -> tuple[_Scores, _Scores, _Scores]:
    """Return the distinct scores from the highest; for each the labels, and the images, at or above it."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
    hits = labels[order].cumsum(dtype=np.float64)[last]
    return ordered[last], hits, np.asarray(last + 1, dtype=np.float64)


def _f1(decided: NDArray[np.bool_], labels: _Scores) -> float:
    """Return F1 in percent; 0 if nothing is decided and nothing is there."""
    hits = float((decided * labels).sum())
    return 200 * hits / max(1.0, float(decided.sum() + labels.sum()))
