"""Find objects in single images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from senet.data import BoxData, ImageData, Preprocessing
from senet.data.boxes import pack
from senet.data.loading.samples import pad
from senet.evaluation.given_images import GivenImage, ImageLike, given_images, open_given
from senet.evaluation.inputs import InputOptions, network_config, with_network_classes
from senet.evaluation.predict import Prediction
from senet.tasks.detection.evaluate import find_objects
from senet.tasks.detection.network import Detections
from senet.utils.arguments import argument_name
from senet.utils.errors import NonFiniteError
from senet.utils.modes import evaluating
from senet.utils.progress import Progress, no_progress
from senet.utils.sizes import size_pair

__all__ = ["BoxPrediction", "predict_boxes"]

# Whole images that are in memory at a time, by default.
_BATCH = 4


@dataclass(frozen=True)
class BoxPrediction(Prediction):
    """The objects that are found in an image.

    Attributes:
        name: file of the image; "" for an image in memory.
        classes: (n) class names, the most probable first; indices as text if the network has no names.
        probabilities: (n,), of the classes.
        truth: (m) class names of the annotated objects; None if they are not known.
        wrong: None.
        boxes: (n, 4), x1, y1, x2, y2 in pixels of the upright image.
        truth_boxes: (m, 4), of the annotated objects; None if they are not known.

    Examples:
        >>> detector = senet.create_model("faster_rcnn:se_resnet20", num_classes=2, min_size=64).eval()
        >>> [found] = senet.predict(detector, ["photos/val/cat/0.png"], threshold=0.1)
        >>> len(found.boxes) == len(found.classes)
        True
    """

    columns: ClassVar[tuple[str, ...]] = (*Prediction.columns, "x1", "y1", "x2", "y2")
    boxes: list[list[float]] = field(default_factory=list)
    truth_boxes: list[list[float]] | None = None

    def cells(self, rank: int) -> list[str]:
        """Return the class of a rank, from 0, and its box in pixels, as cells of a table."""
        return [*super().cells(rank), *(f"{value:.2f}" for value in self.boxes[rank])]


@torch.no_grad()
def predict_boxes(
    model: nn.Module,
    images: Iterable[ImageLike] | ImageData,
    options: InputOptions,
    *,
    top: int | None = None,
    threshold: float,
    progress: Progress = no_progress,
) -> list[Prediction]:
    """Find objects in images, see `Task.predict`.

    Args:
        model: a detector of `create_model`.
        images: files, or PIL images; or images with boxes, whose predictions have them as well.
        options: sizes, class names and batch size.
        top: highest number of boxes for each image; None keeps all.
        threshold: lowest probability of a box.
        progress: shows progress.
    """
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ValueError(f"{argument_name('threshold')} must be from 0 to 1, got {threshold!r}")
    batch = _BATCH if options.batch is None else options.batch
    given = given_images(images, batch, top)
    cfg = network_config(model, options.classes)
    preprocessing = Preprocessing.of(cfg, options)
    data = with_network_classes(images, cfg) if isinstance(images, ImageData) else None
    names = cfg.get("label_names") or [str(number) for number in range(cfg["num_classes"])]
    side = min(size_pair(preprocessing.resize))

    def convert(image: Image.Image) -> tuple[Tensor, Tensor]:
        """Return pixels (C, H, W), and a target (2, 6) without boxes."""
        pixels, none = preprocessing.whole(image, side), torch.zeros(0)
        size, original = (pixels.shape[1], pixels.shape[2]), (image.height, image.width)
        return pixels, pack(0, size, original, none.view(0, 4), none.long(), none.bool(), 1)

    starts = range(0, len(given), batch)
    predictions: list[Prediction] = []
    with evaluating(model):
        for start in progress(starts, len(starts), "predict"):
            opened, inputs = open_given(given[start : start + batch], data, convert, options.skip_bad)
            if not opened:
                continue
            pixels, targets = zip(*inputs, strict=True)
            try:
                found = find_objects(model, pad(pixels, preprocessing.fill), torch.stack(targets))
            except NonFiniteError as error:
                raise NonFiniteError(f"{error}, for images from {opened[0].name} on") from error
            for one, boxes in zip(opened, found, strict=True):
                predictions.append(_with_truth(_prediction(one, boxes, names, top, threshold), one, data))
    return predictions


def _prediction(
    given: GivenImage, found: Detections, names: Sequence[str], top: int | None, threshold: float
) -> BoxPrediction:
    kept = (found.scores >= threshold).nonzero()[:, 0][:top]  # the most certain come first
    classes = [names[label] for label in found.classes[kept].tolist()]
    return BoxPrediction(given.file, classes, found.scores[kept].tolist(), boxes=found.boxes[kept].tolist())


def _with_truth(prediction: BoxPrediction, given: GivenImage, data: ImageData | None) -> BoxPrediction:
    if not isinstance(data, BoxData):
        return prediction
    of = data.of_image(given.index)
    truth = [data.classes[label] for label in of.categories.tolist()]
    return replace(prediction, truth=truth, truth_boxes=of.boxes.tolist())
