import sys

import numpy as np
import pytest

from senet.tasks.detection.average_precision import DetectionEvaluation, Found, Objects, summarize
from tests.tasks.detection.coco_by_hand import THRESHOLDS, average_precision

CLASSES = ["a", "b", "never there"]


def objects_of(rows: list[list[float]], labels: list[int], crowd: object = None) -> Objects:
    corners = np.array(rows, dtype=np.float32).reshape(-1, 4)
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    crowds = np.zeros(len(corners), dtype=bool) if crowd is None else np.array(crowd)
    return Objects(boxes=corners, classes=np.array(labels, dtype=int), areas=areas, crowd=crowds)


def found_of(rows: list[list[float]], labels: list[int], scores: list[float]) -> Found:
    return Found(boxes=np.array(rows).reshape(-1, 4), classes=np.array(labels), scores=np.array(scores))


def result(objects: list[Objects], found: list[Found]) -> DetectionEvaluation:
    return summarize(objects, found, CLASSES, [])


def test_ap_counted_by_hand() -> None:
    """Two objects; the detections in order of score: right, wrong, right at an IoU of 0.64 only."""
    objects = [objects_of([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0])]
    found = [found_of([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 58, 58]], [0, 0, 0], [0.9, 0.8, 0.7])]
    one = result(objects, found)
    # The precision is 1 up to a recall of 0.5 (51 of 101 recalls), then 2 / 3 where 0.64 is enough, otherwise 0.
    half, whole = 51 / 101, (51 + 50 * 2 / 3) / 101
    assert one.ap50 == pytest.approx(100 * whole)
    assert one.ap75 == pytest.approx(100 * half)
    assert one.ap == pytest.approx(100 * (3 * whole + 7 * half) / 10)
    assert one.ap_small == pytest.approx(one.ap)
    assert (one.ap_medium, one.ap_large) == (-1, -1)
    (row,) = one.classes
    assert (row.name, row.images, row.objects, row.ap, row.ap50) == ("a", 1, 2, one.ap, one.ap50)


def scene(random: np.random.Generator, crowds: bool) -> tuple[Objects, Found]:
    """Objects of all sizes, and detections near them, near nothing, and twice."""
    count = int(random.integers(0, 7))
    corners = random.random((count, 2)) * 300
    truth = np.concatenate(
        (corners, corners + random.choice([12, 50, 150], (count, 1)) * (0.6 + random.random((count, 2)))), 1
    )
    labels = random.integers(0, 2, count)
    near = truth.repeat(2, 0) + random.normal(0, 3, (2 * count, 4))
    kept = random.random(len(near)) < 0.7
    stray = np.concatenate((random.random((3, 2)) * 200, 210 + random.random((3, 2)) * 100), 1)
    places = np.concatenate((near[kept], stray))
    classes = np.concatenate((labels.repeat(2)[kept], random.integers(0, 2, 3)))
    objects = objects_of(truth.tolist(), labels.tolist(), crowd=random.random(count) < 0.3 if crowds else None)
    return objects, found_of(places.tolist(), classes.tolist(), random.random(len(places)).round(2).tolist())


@pytest.mark.parametrize("crowds", [False, True])
def test_ap_of_random_scenes(crowds: bool) -> None:
    random = np.random.default_rng(3)
    scenes = [scene(random, crowds) for _ in range(12)]
    objects, found = [one[0] for one in scenes], [one[1] for one in scenes]
    one = result(objects, found)
    for key, thresholds, size in (
        ("ap", THRESHOLDS, "all"),
        ("ap50", [0.5], "all"),
        ("ap75", [0.75], "all"),
        ("ap_small", THRESHOLDS, "small"),
        ("ap_medium", THRESHOLDS, "medium"),
        ("ap_large", THRESHOLDS, "large"),
    ):
        assert getattr(one, key) == pytest.approx(average_precision(objects, found, 3, thresholds, size), abs=1e-9), key
    assert 0 < one.ap < one.ap50 < 100
    assert [row.name for row in one.classes] == ["a", "b"]
    assert one.ap == pytest.approx(np.mean([row.ap for row in one.classes]))


def test_nothing_is_found() -> None:
    one = result([objects_of([[0, 0, 10, 10]], [1])], [found_of([], [], [])])
    assert (one.ap, one.ap50, one.ap_small, one.ap_large, one.images) == (0, 0, 0, -1, 1)


def test_without_the_evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ImportError, match=r"needs faster-coco-eval \(.+\): pip install"):
        result([objects_of([[0, 0, 10, 10]], [1])], [found_of([], [], [])])
