"""COCO's average precision, written from its definition, one image and one detection at a time."""

from typing import Any

import numpy as np

from senet.tasks.detection.average_precision import Found, Objects

THRESHOLDS = [0.5 + 0.05 * n for n in range(10)]
RANGES = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}


def overlap(box: np.ndarray, other: np.ndarray, crowd: bool) -> float:
    """Intersection over union; over the area of the detection if the object is a crowd."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    area, area_of_other = ((one[2] - one[0]) * (one[3] - one[1]) for one in (box, other))
    return shared / (area if crowd else area + area_of_other - shared)


def matches(objects: Objects, found: Found, label: int, threshold: float, limits: tuple[float, float]) -> Any:
    """(score, true, ignored) of each detection of an image, and the number of objects that count."""
    mine = [n for n in range(len(objects.classes)) if objects.classes[n] == label]
    ignored = {n: bool(objects.crowd[n]) or not limits[0] <= objects.areas[n] <= limits[1] for n in mine}
    mine.sort(key=lambda n: ignored[n])  # COCO prefers objects that count
    order = [n for n in np.argsort(-found.scores, kind="stable") if found.classes[n] == label][:100]
    taken: set[int] = set()
    rows = []
    for n in order:
        best, chosen = min(threshold, 1 - 1e-10), None
        for one in mine:
            if one in taken and not objects.crowd[one]:
                continue
            if chosen is not None and not ignored[chosen] and ignored[one]:
                break
            value = overlap(found.boxes[n], objects.boxes[one], bool(objects.crowd[one]))
            if value >= best:
                best, chosen = value, one
        if chosen is None:
            x1, y1, x2, y2 = found.boxes[n]
            rows.append((found.scores[n], False, not limits[0] <= (x2 - x1) * (y2 - y1) <= limits[1]))
        else:
            taken.add(chosen)
            rows.append((found.scores[n], True, ignored[chosen]))
    return rows, sum(not one for one in ignored.values())


def precision_at_recalls(rows: list[Any], count: int) -> float:
    """Mean over the recalls 0, 0.01, ..., 1 of the highest precision at that recall or above."""
    rows = sorted((row for row in rows if not row[2]), key=lambda row: -row[0])
    hits = np.cumsum([row[1] for row in rows]) if rows else np.zeros(0)
    precisions, recalls = hits / np.arange(1, len(rows) + 1), hits / count
    # The tolerance of a recall of 0.3 that is not quite 3 / 10 is COCO's own: the recalls are those of linspace.
    wanted = np.linspace(0, 1, 101)
    return float(np.mean([max(precisions[recalls >= recall], default=0.0) for recall in wanted]))


def average_precision(
    objects: list[Objects], found: list[Found], classes: int, thresholds: list[float], size: str = "all"
) -> float:
    """In percent; -1 without objects of the size."""
    values = []
    for label in range(classes):
        for threshold in thresholds:
            per_image = [matches(*pair, label, threshold, RANGES[size]) for pair in zip(objects, found, strict=True)]
            count = sum(one[1] for one in per_image)
            if count:
                values.append(precision_at_recalls([row for one in per_image for row in one[0]], count))
    return 100 * float(np.mean(values)) if values else -1.0
