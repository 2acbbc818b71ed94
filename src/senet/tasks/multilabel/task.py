"""Multi-label: any number of labels for each image."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet.data import ImageData, Loader, MultiLabelData
from senet.evaluation.evaluate import measure
from senet.tasks.multilabel.metrics import MultiLabelEvaluation, MultiLabelMetrics, check_labels
from senet.tasks.multilabel.objective import BinaryLoss
from senet.tasks.objective import Objective, ObjectiveContext, ObjectiveSettings
from senet.tasks.task import Outcomes, Peers, Result, Task
from senet.utils.errors import DataError, shown
from senet.utils.metric import Metric, Panel
from senet.utils.progress import Progress, no_progress

__all__ = ["MultiLabel"]

_PERCENT = (0.0, 100.0)
_TRAIN_LOSS = Metric(key="train_loss", name="loss", digits=4, column="train loss", progress="loss {:.4f}")
_TRAIN_ERROR = Metric(
    key="train_error", name="wrong labels", unit="%", limits=_PERCENT, column="wrong %", progress="wrong {:4.1f} %"
)
_LOSS = Metric(key="loss", name="loss", label="binary cross entropy (nats)", digits=4, column="val loss")
_MAP = Metric(key="map", name="mAP", unit="%", better="higher", limits=_PERCENT, column="mAP %")
_STORED_F1 = Metric(
    key="stored_f1",
    name="F1 at the stored thresholds",
    unit="%",
    better="higher",
    limits=(-1.0, 100.0),
    undefined=-1.0,
)
_F1 = Metric(key="f1", name="F1", unit="%", better="higher", limits=_PERCENT, column="F1 %")
_ERROR = Metric(key="label_error", name="wrong labels", unit="%", limits=_PERCENT)
# Shares of wrong labels, and of images with a wrong label.
_LABEL_ERROR = Metric(key="label_error", name="label error", unit="%", limits=_PERCENT)
_IMAGE_ERROR = Metric(key="image_error", name="image error", unit="%", limits=_PERCENT, of_images=True)
_AP = Metric(key="ap", name="AP", unit="%", better="higher", limits=_PERCENT)
_THRESHOLD = Metric(key="threshold", name="threshold", digits=3, limits=(0.0, 1.0))

# Values of a recipe that need one class per image.
_REFUSED = {"label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0, "class_weights": "none", "sampling": "shuffle"}


class MultiLabel(Task):
    """Any number of labels for each image: binary cross entropy or asymmetric loss, mAP and F1 in evaluation."""

    name = "multilabel"
    training = (_TRAIN_LOSS, _TRAIN_ERROR)
    validation = (_LOSS, _MAP, _F1, _ERROR)
    decisive = _MAP
    counters = ("wrong",)
    stored = ("thresholds",)
    reported = (_STORED_F1,)
    by_class = (_AP, _F1, _THRESHOLD)
    judged = (_LABEL_ERROR, _IMAGE_ERROR)
    panels = (Panel(validation=_MAP), Panel(validation=_LOSS, training=_TRAIN_LOSS))

    def check(self, settings: ObjectiveSettings) -> None:
        """Refuse the values that need one class per image, and the sizes of detectors."""
        super().check(settings)
        for key, value in _REFUSED.items():
            if getattr(settings, key) != value:
                raise ValueError(
                    f"{key}={getattr(settings, key)} needs one class per image, task=classification; set {key}={value}"
                )

    def data(self, images: ImageData) -> ImageData:
        """Return the images with any number of labels each; a class is a label."""
        return MultiLabelData.of(images)

    def check_validation(self, images: ImageData) -> None:
        """Check that an image has a label."""
        check_labels(images.labels, images.spec)

    def objective(self, context: ObjectiveContext) -> Objective:
        """Return the loss of a run."""
        return BinaryLoss(context)

    def training_values(self, loss: float, counts: Mapping[str, float], images: int) -> dict[str, float]:
        """Return the mean loss, and the percentage of wrong decisions at 0.5."""
        return {_TRAIN_LOSS.key: loss, _TRAIN_ERROR.key: 100 * counts["wrong"] / max(images, 1)}

    def evaluate(
        self,
        model: nn.Module,
        loader: Loader,
        *,
        progress: Progress = no_progress,
        peers: Peers | None = None,
    ) -> MultiLabelEvaluation:
        """Return mAP, F1 and the cross entropy."""
        cfg: Any = getattr(model, "pretrained_cfg", None) or {}
        metrics = MultiLabelMetrics(loader, cfg.get("thresholds"))
        return measure(model, loader, metrics, progress=progress, total=None if peers is None else peers.summed)

    def is_wrong(self, logits: Tensor, cfg: Mapping[str, Any], target: Any) -> bool:
        """Return whether the labels at or above their thresholds are not those of the image."""
        return sorted(self.choose(logits, cfg, None)[0]) != torch.as_tensor(target).nonzero().flatten().tolist()

    def outcomes(self, logits: Tensor, labels: Tensor) -> Outcomes:
        """Return the share of wrong decisions at 0.5, and whether there is one; and binary cross entropies."""
        if labels.shape != logits.shape:
            raise DataError(
                f"labels are {tuple(labels.shape)}, but logits {tuple(logits.shape)}; give a column of 0 and 1 for "
                f"each label of the network"
            )
        wrong = (logits > 0) != labels.bool()
        losses = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(1)
        return Outcomes((wrong.to(logits.dtype).mean(1), wrong.any(1)), losses)

    def check_stored(self, cfg: Mapping[str, Any], classes: int) -> None:
        """Check that there is a threshold from 0 to 1 for each label, or none at all."""
        found = cfg.get("thresholds")
        numbers = isinstance(found, list | tuple) and all(
            isinstance(one, int | float) and not isinstance(one, bool) and 0 <= one <= 1 for one in found
        )
        if found is not None and not (numbers and len(found) == classes):
            raise ValueError(
                f"thresholds must be a number from 0 to 1 for each of {classes} labels, got {shown(found)}"
            )

    def learned(self, result: Result) -> dict[str, Any]:
        """Return the thresholds of an evaluation, by label."""
        assert isinstance(result, MultiLabelEvaluation)
        return {"thresholds": result.thresholds}

    def choose(self, logits: Tensor, cfg: Mapping[str, Any], top: int | None) -> tuple[list[int], list[float]]:
        """Return the labels at or above their thresholds, the most probable first."""
        probabilities = logits.double().sigmoid()
        thresholds: Sequence[float] = cfg.get("thresholds") or [0.5] * len(probabilities)
        values, indices = probabilities.sort(descending=True, stable=True)
        pairs = [
            (index, value)
            for index, value in zip(indices.tolist(), values.tolist(), strict=True)
            if value >= thresholds[index]
        ][:top]
        return [index for index, _ in pairs], [value for _, value in pairs]

    def caption(self, classes: Sequence[str], probabilities: Sequence[float]) -> str:
        """Return the labels, or "none"."""
        return ", ".join(classes) or "none"
