"""Detection: boxes and classes of any number of objects in each image."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from senet.data import BoxData, ImageData, Loader, Preprocessing
from senet.data.boxes import unpack
from senet.evaluation.given_images import ImageLike
from senet.evaluation.inputs import InputOptions
from senet.evaluation.predict import Prediction
from senet.models import plain_name
from senet.models.detection import apply_preprocessing
from senet.models.detector_names import is_detector
from senet.tasks.collector import Collector
from senet.tasks.detection.average_precision import DetectionEvaluation, check_evaluator
from senet.tasks.detection.collector import BoxCollector, DetectorOutputs, run_detector
from senet.tasks.detection.evaluate import check_objects, evaluate_detector, objects_of
from senet.tasks.detection.objective import PARTS, BoxLoss
from senet.tasks.detection.predict import BoxPrediction, predict_boxes
from senet.tasks.objective import Objective, ObjectiveContext, ObjectiveSettings
from senet.tasks.task import Peers, Task
from senet.utils.box_figures import DrawnBoxes, draw_boxes
from senet.utils.errors import DataError
from senet.utils.limits import LARGEST_SIDE
from senet.utils.metric import Metric, Panel
from senet.utils.progress import Progress, no_progress

__all__ = ["Detection"]

_PERCENT = (0.0, 100.0)
_NONE = -1.0  # without objects of the size
_OR_NONE = (_NONE, 100.0)
_LOSS = Metric(key="train_loss", name="loss", digits=4, column="train loss", progress="loss {:.3f}")
_CLASS = Metric(key="train_class_loss", name="loss of classes", digits=4)
_BOX = Metric(key="train_box_loss", name="loss of boxes", digits=4)
_OBJECTNESS = Metric(key="train_objectness_loss", name="loss of objectness", digits=4)
_PROPOSAL = Metric(key="train_proposal_loss", name="loss of proposals", digits=4)
_AP = Metric(key="ap", name="AP", unit="%", better="higher", limits=_PERCENT, column="AP %")
_AP50 = Metric(key="ap50", name="AP50", unit="%", better="higher", limits=_PERCENT, column="AP50 %")
_AP75 = Metric(key="ap75", name="AP75", unit="%", better="higher", limits=_PERCENT)
_SMALL = Metric(key="ap_small", name="AP of small objects", unit="%", better="higher", limits=_OR_NONE, undefined=_NONE)
_MEDIUM = Metric(
    key="ap_medium", name="AP of medium objects", unit="%", better="higher", limits=_OR_NONE, undefined=_NONE
)
_LARGE = Metric(key="ap_large", name="AP of large objects", unit="%", better="higher", limits=_OR_NONE, undefined=_NONE)

# Values of a recipe that a detector does not have, with the one to set.
_REFUSED: dict[str, Any] = {
    "loss": "cross_entropy",
    "label_smoothing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "class_weights": "none",
    "sampling": "shuffle",
    "crop": "none",
    "randaugment": "",
}
# Lowest probability of a predicted box.
_THRESHOLD = 0.5
# Smallest side of an image for a feature pyramid.
_LEAST_SIDE = 32


class Detection(Task):
    """Boxes of any number of objects in each image: torchvision's losses, COCO's average precision."""

    name = "detection"
    training = (_LOSS, _CLASS, _BOX, _OBJECTNESS, _PROPOSAL)
    validation = (_AP, _AP50, _AP75, _SMALL, _MEDIUM, _LARGE)
    decisive = _AP
    counters = tuple(PARTS)
    by_class = (_AP, _AP50)
    judged = (_AP, _AP50)
    panels = (Panel(validation=_AP), Panel(validation=_AP50))
    described = "objects"
    pipeline = "object-detection"
    evaluation_batch = 4  # whole images, which run one by one
    trunk_name = "backbone with pyramid"
    views = "whole images"

    def check(self, settings: ObjectiveSettings) -> None:
        """Refuse the values of classifiers, sizes of no image, and compilation."""
        for key, value in _REFUSED.items():
            found = getattr(settings, key)
            if found != value:
                raise ValueError(
                    f"{key}={found} is not available with task=detection; set {key}={value or repr(value)}"
                )
        if settings.compile:
            raise ValueError(
                f"compile=true is not available with task=detection: {BoxLoss.obstacle}, and each new shape would be "
                f"compiled; set compile=false"
            )
        if not isinstance(settings.resize, int):
            raise ValueError(
                f"resize must be a number with task=detection, the shorter side in pixels, got {settings.resize}"
            )
        for key, side in (("resize", settings.resize), *(("scales", side) for side in settings.scales)):
            if not _LEAST_SIDE <= side <= min(settings.max_size, LARGEST_SIDE):
                raise ValueError(
                    f"{key} must be from {_LEAST_SIDE} to max_size={settings.max_size} pixels with task=detection, got "
                    f"{side}"
                )

    def data(self, images: ImageData) -> ImageData:
        """Return the images; refuse images without boxes."""
        if not isinstance(images, BoxData):
            raise DataError(
                f"{images.spec} has no boxes, which task=detection needs: give annotations of COCO, as "
                f"coco:DIR with train/, train.json, val/ and val.json"
            )
        return images

    def check_validation(self, images: ImageData) -> None:
        """Check that an image has an object."""
        assert isinstance(images, BoxData)
        check_objects((objects_of(images, index) for index in range(len(images))), images.spec)

    def check_network(self, name: str) -> None:
        """Check that a network is a detector, and that it can be evaluated.

        Raises:
            ValueError: it returns logits.
            ImportError: faster-coco-eval is not installed.
        """
        check_evaluator()
        if ":" in name:
            plain_name(name)  # raises for an unknown kind of detector
        if not is_detector(name):
            raise ValueError(
                f"{name} returns logits, and task=detection needs boxes: train faster_rcnn:{name} or retinanet:{name}"
            )

    def prepare(self, model: nn.Module, settings: ObjectiveSettings) -> None:
        """Let a detector normalize and resize images as the recipe has it."""
        cfg: Any = model.pretrained_cfg
        side = settings.resize
        cfg |= {
            "input_size": (cfg["input_size"][0], side, side),
            "crop_pct": 1.0,
            "min_size": side,
            "max_size": settings.max_size,
        }
        cfg.pop("resize", None)
        apply_preprocessing(model)

    def preprocessing(self, preprocessing: Preprocessing) -> Preprocessing:
        """Return the preprocessing that keeps pixels on the scale of 0 to 1, which a detector normalizes itself."""
        channels = len(preprocessing.mean)
        return replace(preprocessing, crop=preprocessing.resize, mean=(0.0,) * channels, std=(1.0,) * channels)

    def resizing(self, cfg: Mapping[str, Any]) -> str:
        """Return how images are resized, in a model card."""
        return f"resize the shorter side to {cfg['min_size']} pixels, the longer one to at most {cfg['max_size']}"

    def trunk(self, model: nn.Module) -> nn.Module:
        """Return the backbone with its feature pyramid."""
        backbone: nn.Module = model.get_submodule("backbone")
        return backbone

    def objective(self, context: ObjectiveContext) -> Objective:
        """Return the losses of a run."""
        return BoxLoss(context)

    def training_values(self, loss: float, counts: Mapping[str, float], images: int) -> dict[str, float]:
        """Return the mean loss and its parts; those that a network does not have are 0."""
        return {_LOSS.key: loss} | {f"train_{key}": counts[key] / max(images, 1) for key in PARTS}

    def evaluate(
        self,
        model: nn.Module,
        loader: Loader,
        *,
        progress: Progress = no_progress,
        peers: Peers | None = None,
    ) -> DetectionEvaluation:
        """Return COCO's average precision."""
        return evaluate_detector(model, loader, progress=progress, peers=peers)

    def run(self, model: nn.Module, images: Tensor, pixels: Tensor | None, labels: Tensor) -> DetectorOutputs:
        """Return the detections of a batch, whose pixels a detector normalizes itself."""
        assert pixels is not None
        return run_detector(model, pixels, labels)

    def split(self, pixels: Tensor | None, labels: Tensor) -> list[tuple[slice, Tensor | None]]:
        """Return single images without the padding of the batch: a detector runs on one at a time."""
        assert pixels is not None
        sizes = [unpack(target).size for target in labels]
        return [
            (slice(row, row + 1), pixels[row : row + 1, :, :height, :width])
            for row, (height, width) in enumerate(sizes)
        ]

    def collector(self, data: ImageData | None) -> Collector:
        """Return a collector of detections.

        Raises:
            DataError: the images have no boxes.
        """
        if data is None:
            raise DataError(
                "the gates of a detector are judged by the boxes of images; give a spec, or images with boxes"
            )
        images = self.data(data)
        assert isinstance(images, BoxData)
        return BoxCollector(images)

    def check_stored(self, cfg: Mapping[str, Any], classes: int) -> None:
        """Check nothing: the sizes in a file are checked when its network is built."""

    def predict(
        self,
        model: nn.Module,
        images: Iterable[ImageLike] | ImageData,
        options: InputOptions,
        *,
        top: int | None = None,
        threshold: float | None = None,
        progress: Progress = no_progress,
    ) -> list[Prediction]:
        """Return boxes of a probability of `threshold` or more, 0.5 by default."""
        threshold = _THRESHOLD if threshold is None else threshold
        return predict_boxes(model, images, options, top=top, threshold=threshold, progress=progress)

    def describe(self, prediction: Prediction) -> str:
        """Return the number of objects of each class."""
        return self.shows(prediction.classes)

    def shows(self, truth: Sequence[str]) -> str:
        """Return the number of objects of each class, or "none"."""
        return ", ".join(f"{truth.count(name)} {name}" for name in dict.fromkeys(truth)) or "none"

    def draw(
        self,
        pictures: Sequence[Image.Image],
        predictions: Sequence[Prediction],
        path: str | PathLike[str],
        title: str = "",
    ) -> None:
        """Draw images with their boxes, classes and probabilities, and with annotated boxes in dashed lines."""
        drawn = []
        for one in predictions:
            assert isinstance(one, BoxPrediction)
            drawn.append(
                DrawnBoxes(
                    title=Path(one.name).name,
                    boxes=one.boxes,
                    classes=one.classes,
                    labels=[f"{name} {p:.2f}" for name, p in zip(one.classes, one.probabilities, strict=True)],
                    truth=one.truth_boxes or (),
                    truth_classes=one.truth or (),
                )
            )
        draw_boxes(pictures, drawn, path, title)

    def caption(self, classes: Sequence[str], probabilities: Sequence[float]) -> str:
        """Return the number of objects of each class, or "none"."""
        return self.shows(classes)
