"""Average precision as COCO defines it, in total, by size and by class, computed by faster-coco-eval."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.utils.extras import optional_import

__all__ = [
    "BoxResult",
    "DetectionEvaluation",
    "Found",
    "MatchedBoxes",
    "Objects",
    "average_precisions",
    "check_evaluator",
    "summarize",
]

# Ranges of area in the order of faster-coco-eval; the places of 0.5 and 0.75 among its thresholds 0.5, 0.55, ..., 0.95.
_RANGES = ("all", "small", "medium", "large")
_HALF, _THREE_QUARTERS = 0, 5


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The objects of an image.

    Attributes:
        boxes: (n, 4), x1, y1, x2, y2 in pixels of the original image.
        classes: (n,), class indices.
        areas: (n,), in square pixels, by which COCO groups objects by size.
        crowd: (n,), whether an object is a crowd, which any number of detections may match and which counts for none.
    """

    boxes: NDArray[Any]
    classes: NDArray[Any]
    areas: NDArray[Any]
    crowd: NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Found:
    """The detections in an image.

    Attributes:
        boxes: (n, 4), x1, y1, x2, y2 in pixels of the original image.
        classes: (n,), class indices.
        scores: (n,), 0 to 1.
    """

    boxes: NDArray[Any]
    classes: NDArray[Any]
    scores: NDArray[Any]


@dataclass(frozen=True)
class BoxResult:
    """Results of a class.

    Attributes:
        name: of the class.
        images: number of images with objects of the class.
        objects: number of its objects, without crowds.
        ap: average precision in percent, the mean over IoU of 0.5, 0.55, ..., 0.95.
        ap50: average precision at an IoU of 0.5, in percent.
    """

    name: str
    images: int
    objects: int
    ap: float
    ap50: float


@dataclass(frozen=True, kw_only=True)
class DetectionEvaluation:
    """Results of a detector on a data set: COCO's, with at most 100 detections for each image.

    Attributes:
        ap: mean over the classes of average precision, itself the mean over IoU of 0.5, 0.55, ..., 0.95; in percent.
        ap50: at an IoU of 0.5.
        ap75: at an IoU of 0.75.
        ap_small: of objects of less than 32 * 32 pixels of the original image; -1 if there are none, as in COCO.
        ap_medium: of objects up to 96 * 96 pixels; -1 if there are none.
        ap_large: of larger objects; -1 if there are none.
        images: number of evaluated images.
        classes: results by class, for classes that have objects.
        skipped: names of images that could not be read.

    Examples:
        >>> detector = senet.create_model("faster_rcnn:se_resnet20", num_classes=2, min_size=64)
        >>> found = senet.evaluate(detector, "coco:cells")
        >>> 0 <= found.ap <= found.ap50, found.images
        (True, 2)
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    images: int
    classes: list[BoxResult]
    skipped: list[str]


def check_evaluator() -> None:
    """Check that faster-coco-eval is installed.

    Raises:
        ImportError: it is not; the message has the command that installs it.
    """
    with optional_import("detect", "the average precision of detectors needs faster-coco-eval", ImportError):
        import faster_coco_eval  # noqa: F401


def average_precisions(objects: Sequence[Objects], detections: Sequence[Found], classes: int) -> NDArray[np.float64]:
    """Return the interpolated precisions of COCO, at most 100 detections for each image.

    Args:
        objects, detections: of each image.
        classes: number of classes, K.

    Returns:
        (10, 101, K, 4): precision by IoU threshold, recall, class and range of area (all, small, medium, large); -1 for
        a class without objects in a range.

    Raises:
        ImportError: faster-coco-eval is not installed.
    """
    evaluator = _evaluator(objects, detections, classes)
    evaluator.evaluate()
    evaluator.accumulate()
    precision: NDArray[np.float64] = np.asarray(evaluator.eval["precision"], dtype=np.float64)
    return precision[..., -1]  # at most 100 detections


class MatchedBoxes:
    """Detections that are matched with the objects of their images, for the precision of any selection of the images.

    Args:
        objects, detections: of each of M images.
        classes: number of classes, K.

    Raises:
        ImportError: faster-coco-eval is not installed.
    """

    def __init__(self, objects: Sequence[Objects], detections: Sequence[Found], classes: int) -> None:
        self._images, self._classes = len(objects), classes
        self._evaluator = _evaluator(objects, detections, classes, separate_eval=True)
        parameters = self._evaluator.params
        parameters.maxDets, parameters.areaRng, parameters.areaRngLbl = [100], parameters.areaRng[:1], ["all"]
        self._evaluator.evaluate()
        # A result for each class and image, classes first: what `evaluate` leaves for `accumulate`.
        self._matches = list(self._evaluator._evalImgs_cpp)

    def precision(self, images: NDArray[np.int64] | None = None) -> tuple[float, float]:
        """Return AP and AP50 in percent; -1 without an object.

        Args:
            images: (M,), positions of images, of which some may occur several times; all images by default.
        """
        places = list(range(self._images)) if images is None else images.tolist()
        starts = range(0, self._classes * self._images, self._images)
        self._evaluator._evalImgs_cpp = [self._matches[start + place] for start in starts for place in places]
        self._evaluator.accumulate()
        precision = np.asarray(self._evaluator.eval["precision"], dtype=np.float64)
        return _percent(precision), _percent(precision[_HALF])


def _evaluator(objects: Sequence[Objects], detections: Sequence[Found], classes: int, **options: Any) -> Any:
    """Return faster-coco-eval's evaluator of the boxes of images."""
    check_evaluator()
    from faster_coco_eval import COCO, COCOeval_faster

    heads = {
        "images": [{"id": number} for number in range(1, len(objects) + 1)],
        "categories": [{"id": number, "name": str(number)} for number in range(1, classes + 1)],
    }
    truth = COCO(heads | {"annotations": _annotations(objects, _of_object)})
    found = COCO(heads | {"annotations": _annotations(detections, _of_detection)})
    return COCOeval_faster(truth, found, iouType="bbox", **options)


def _annotations(images: Iterable[Any], more: Callable[[Any, int, float], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return boxes in the form of COCO: x, y, width, height, and numbers from 1.

    Args:
        images: the objects or detections of each image.
        more: returns the other entries of a box, from those of the image, its place among them and its area.
    """
    rows: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        corners = np.asarray(image.boxes, dtype=np.float64).reshape(-1, 4)
        sides = corners[:, 2:] - corners[:, :2]
        for place in range(len(corners)):
            row = {
                "id": len(rows) + 1,
                "image_id": number,
                "category_id": int(image.classes[place]) + 1,
                "bbox": [*corners[place, :2].tolist(), *sides[place].tolist()],
            }
            rows.append(row | more(image, place, float(sides[place].prod())))
    return rows


def _of_object(image: Objects, place: int, area: float) -> dict[str, Any]:
    return {"area": float(image.areas[place]), "iscrowd": int(image.crowd[place])}


def _of_detection(image: Found, place: int, area: float) -> dict[str, Any]:
    return {"area": area, "score": float(image.scores[place])}


def summarize(
    objects: Sequence[Objects], detections: Sequence[Found], classes: Sequence[str], skipped: list[str]
) -> DetectionEvaluation:
    """Return the result of a detector.

    Args:
        objects, detections: of each evaluated image.
        classes: class names.
        skipped: names of images that could not be read.

    Raises:
        ImportError: faster-coco-eval is not installed.
    """
    precision = average_precisions(objects, detections, len(classes))
    by_range = {name: _percent(precision[..., number]) for number, name in enumerate(_RANGES)}
    rows = []
    for number, name in enumerate(classes):
        counts = [int(((image.classes == number) & ~image.crowd.astype(bool)).sum()) for image in objects]
        if sum(counts):
            own = precision[:, :, number, 0]
            ap, ap50 = _percent(own), _percent(own[_HALF])
            rows.append(BoxResult(name, sum(count > 0 for count in counts), sum(counts), ap, ap50))
    return DetectionEvaluation(
        ap=by_range["all"],
        ap50=_percent(precision[_HALF, ..., 0]),
        ap75=_percent(precision[_THREE_QUARTERS, ..., 0]),
        ap_small=by_range["small"],
        ap_medium=by_range["medium"],
        ap_large=by_range["large"],
        images=len(objects),
        classes=rows,
        skipped=skipped,
    )


def _percent(precision: NDArray[np.float64]) -> float:
    """Return the mean in percent, without the classes that have no objects; -1 if none has."""
    known = precision[precision > -1]
    return float(100 * known.mean()) if known.size else -1.0
