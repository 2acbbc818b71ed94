"""Classification: one class for each image."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from senet.data import BoxData, ImageData, Loader, MultiLabelData
from senet.evaluation import Evaluation, evaluate_loader
from senet.evaluation.metrics import label_ranks
from senet.tasks.classification.objective import CrossEntropy
from senet.tasks.objective import Objective, ObjectiveContext, ObjectiveSettings
from senet.tasks.task import Outcomes, Peers, Task
from senet.utils.errors import DataError
from senet.utils.metric import Metric, Panel
from senet.utils.progress import Progress, no_progress

__all__ = ["Classification"]

_PERCENT = (0.0, 100.0)
_TRAIN_LOSS = Metric(
    key="train_loss",
    name="loss",
    label="cross entropy (nats)",
    digits=4,
    column="train loss",
    progress="loss {:.3f}",
)
_TRAIN_ERROR = Metric(
    key="train_error",
    name="top-1 error",
    unit="%",
    limits=_PERCENT,
    column="error %",
    progress="error {:4.1f} %",
)
_LOSS = Metric(key="loss", name="loss", label="cross entropy (nats)", digits=4, column="val loss")
_TOP1 = Metric(
    key="top1_error", name="top-1 error", noun="error", unit="%", limits=_PERCENT, of_images=True, column="error %"
)
_TOP5 = Metric(key="top5_error", name="top-5 error", unit="%", limits=_PERCENT)


class Classification(Task):
    """One class for each image: cross entropy in training, top-1 and top-5 error in evaluation."""

    name = "classification"
    training = (_TRAIN_LOSS, _TRAIN_ERROR)
    validation = (_LOSS, _TOP1, _TOP5)
    decisive = _TOP1
    counters = ("wrong",)
    by_class = (_TOP1, _TOP5)
    one_class = True
    judged = (_TOP1, _TOP5)
    shown = 3
    panels = (
        Panel(validation=_TOP1, training=_TRAIN_ERROR),
        Panel(validation=_LOSS, training=_TRAIN_LOSS),
    )

    def check(self, settings: ObjectiveSettings) -> None:
        """Refuse the losses of other tasks, and the sizes of detectors."""
        super().check(settings)
        if settings.loss != "cross_entropy":
            raise ValueError(f"loss={settings.loss} needs task=multilabel; set loss=cross_entropy")

    def data(self, images: ImageData) -> ImageData:
        """Return the images; refuse images with boxes, with several labels, or none."""
        if isinstance(images, BoxData):
            raise DataError(
                f"{images.spec} has boxes, and classification needs one class for each image; train a detector with "
                f"--task detection, or labels of whole images with --task multilabel"
            )
        if isinstance(images, MultiLabelData):
            count = int((images.labels.sum(1) != 1).sum())
            raise DataError(
                f"{images.spec} has {count} images with several labels or none, and classification needs one class for "
                f"each; train with --task multilabel"
            )
        return images

    def objective(self, context: ObjectiveContext) -> Objective:
        """Return the cross entropy of a run."""
        return CrossEntropy(context)

    def training_values(self, loss: float, counts: Mapping[str, float], images: int) -> dict[str, float]:
        """Return the mean cross entropy in nats, and the top-1 error in percent."""
        return {_TRAIN_LOSS.key: loss, _TRAIN_ERROR.key: 100 * counts["wrong"] / max(images, 1)}

    def evaluate(
        self,
        model: nn.Module,
        loader: Loader,
        *,
        progress: Progress = no_progress,
        peers: Peers | None = None,
    ) -> Evaluation:
        """Return top-1 and top-5 error, and the cross entropy."""
        return evaluate_loader(model, loader, progress=progress, total=None if peers is None else peers.summed)

    def evaluate_confusion(self, model: nn.Module, loader: Loader, *, progress: Progress = no_progress) -> Evaluation:
        """Return the errors with the confusion matrix."""
        return evaluate_loader(model, loader, progress=progress, confusion=True)

    def is_wrong(self, logits: Tensor, cfg: Mapping[str, Any], target: Any) -> bool:
        """Return whether another class is the most probable one."""
        return self.choose(logits, cfg, 1)[0] != [int(target)]

    def outcomes(self, logits: Tensor, labels: Tensor) -> Outcomes:
        """Return whether the label of each image is not the first, or not among the first five; and cross entropies."""
        classes = logits.shape[1]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            wrong = int(labels.max()) if int(labels.max()) >= classes else int(labels.min())
            raise DataError(f"a label is {wrong}, but the network has {classes} classes; labels must be below that")
        ranks = label_ranks(logits, labels)
        return Outcomes((ranks >= 1, ranks >= 5), F.cross_entropy(logits, labels, reduction="none"))

    def check_stored(self, cfg: Mapping[str, Any], classes: int) -> None:
        """Check nothing: a file has nothing of this task."""

    def choose(self, logits: Tensor, cfg: Mapping[str, Any], top: int | None) -> tuple[list[int], list[float]]:
        """Return the most probable classes, five by default; a tie goes to the class with the lower index."""
        values, indices = logits.double().softmax(0).sort(descending=True, stable=True)
        top = 5 if top is None else top
        return indices[:top].tolist(), values[:top].tolist()

    def caption(self, classes: Sequence[str], probabilities: Sequence[float]) -> str:
        """Return the most probable class, with its probability."""
        return f"{classes[0]}  {100 * probabilities[0]:.0f} %"
