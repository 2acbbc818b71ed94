"""Whole detectors as ONNX: the boxes of the file are those of PyTorch, and the commands read it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import senet
from senet.deployment.engines import load_exported
from senet.deployment.export import detector as exporting
from senet.utils.errors import ExportError
from tests.helpers import shallow_resnet20
from tests.tasks.detection.small import CLASSES, Scenes, scenes

SIZES = {"min_size": 40, "max_size": 64, "fpn_channels": 8}


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    with shallow_resnet20():
        yield


def trained(kind: str) -> Any:
    """A detector of whose boxes rounding does not decide which are kept.

    The boxes of a new RetinaNet are its anchors, many of which overlap by exactly 0.5, the limit of duplicates.
    """
    torch.manual_seed(0)
    model: Any = senet.create_model(f"{kind}:se_resnet20", num_classes=2, **SIZES)
    model.pretrained_cfg["label_names"] = CLASSES
    with torch.no_grad():
        if kind == "retinanet":
            head = model.head.classification_head
            for weight in (one for one in head.parameters() if one.ndim == 4):
                weight.normal_(std=0.2)
            head.cls_logits.bias.fill_(-1)
            model.head.regression_head.bbox_reg.weight.normal_(std=0.2)
        else:
            model.roi_heads.box_predictor.cls_score.weight.normal_(std=0.2)
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "outputs"),
    [
        ("faster_rcnn", ["boxes", "labels", "scores"]),
        pytest.param("retinanet", ["boxes", "scores", "labels"], marks=pytest.mark.slow),
    ],
)
def test_a_file_finds_the_same_boxes(kind: str, outputs: list[str], tmp_path: Path) -> None:
    model, path = trained(kind), tmp_path / "detector.onnx"
    report = senet.export(model, path, calibration=scenes(2), rewrite=kind == "faster_rcnn")
    assert report.outputs == outputs
    assert report.inputs == {"image": "(3, -1, -1) float32"}
    assert report.comparison.inputs == 2
    assert report.comparison.matched == report.comparison.boxes > 0
    loaded: Any = load_exported(path)
    assert loaded.classes == tuple(CLASSES)
    assert (loaded.preprocessing.resize, loaded.preprocessing.max_size) == (40, 64)
    # Of another size than that of the trace.
    image = torch.rand(3, 70, 51)
    with torch.no_grad():
        (expected,) = model([image])
    (found,) = loaded([image])
    pairs = exporting._match(found, expected)
    assert len(pairs) == len(expected["scores"]) == len(found["scores"]) > 0
    for row, other in pairs:
        torch.testing.assert_close(found["boxes"][row], expected["boxes"][other], rtol=1e-3, atol=1e-3)
    # Through the loader, which resizes first.
    assert senet.evaluate(loaded, scenes(3)).ap == pytest.approx(senet.evaluate(model, scenes(3)).ap, abs=1)
    pictures = [Scenes().read(0)]
    (one,), (other,) = (senet.predict(each, pictures, threshold=0.1) for each in (loaded, model))
    assert len(one.classes) == len(other.classes) > 0


def test_boxes_without_area_have_counterparts() -> None:
    """RetinaNet returns boxes that were clipped to the border of the image, several at one place."""
    corner = [51.0, 70.0, 51.0, 70.0]
    boxes = torch.tensor([[4.0, 4.0, 24.0, 22.0], corner, corner, [0.0, 0.0, 51.0, 70.0]])
    expected = {"boxes": boxes, "labels": torch.tensor([1, 1, 1, 1]), "scores": torch.tensor([0.9, 0.8, 0.7, 0.6])}
    order = [2, 0, 3, 1]
    found = {key: value[order] for key, value in expected.items()}
    assert sorted(exporting._match(found, expected)) == list(enumerate(order))
    found["labels"] = torch.tensor([2, 1, 1, 1])
    assert sorted(exporting._match(found, expected)) == [(1, 0), (2, 3), (3, 1)]


def test_a_file_that_finds_others_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained("faster_rcnn")
    traced = exporting._traced

    def wrong(network: Any, *arguments: Any) -> Any:
        with torch.no_grad():
            network.roi_heads.box_predictor.bbox_pred.bias.add_(0.5)
        return traced(network, *arguments)

    monkeypatch.setattr(exporting, "_traced", wrong)
    with pytest.raises(ExportError, match=r"boxes of the exported file .*(no counterpart|differ)"):
        senet.export(model, tmp_path / "detector.onnx", torch.rand(1, 3, 40, 56))
    assert list(tmp_path.iterdir()) == []


def test_what_a_detectors_file_does_not_have(tmp_path: Path) -> None:
    model = trained("retinanet")
    with pytest.raises(ValueError, match=r"a detector is exported as \.onnx, got the format torch: .* `backbone`"):
        senet.export(model, tmp_path / "detector.pt2")
    path = tmp_path / "detector.onnx"
    for options, message in (
        ({"precision": "fp16"}, "a detector is exported in fp32, got precision 'fp16'"),
        ({"dynamic": ["batch"]}, "takes one image of any size; leave out dynamic axes"),
        ({"with_preprocessing": True}, "resizes and normalizes images as the detector does"),
        ({"example": torch.rand(2, 1, 40, 40)}, r"takes images \(N, 3, H, W\) of 0 to 1, got \(2, 1, 40, 40\)"),
    ):
        with pytest.raises(ValueError, match=message):
            senet.export(model, path, **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
