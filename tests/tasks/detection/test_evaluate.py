from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import senet
from senet.data import BoxData, open_loader
from senet.evaluation import InputOptions, write_predictions
from senet.tasks import get_task, loader_for
from senet.tasks.detection import BoxPrediction
from senet.utils.errors import DataError, NonFiniteError
from senet.utils.figure_style import COLOURS
from tests.helpers import shallow_resnet20
from tests.tasks.detection.small import CLASSES, NETWORK, Scenes, annotations, boxes_of, detector, recipe, scenes
from tests.training.small import small_data

TASK = get_task("detection")


@pytest.fixture(scope="module", autouse=True)
def model() -> Iterator[Any]:
    with shallow_resnet20():
        model = detector()
        with torch.no_grad():  # few of an untrained network's boxes have more than the lowest score
            model.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([0.0, 0.3, 0.5]))
        yield model


def loader(rank: int = 0, world_size: int = 1) -> Any:
    preprocessing = TASK.preprocessing(recipe().preprocessing)
    return open_loader(scenes(), preprocessing, batch=3, rank=rank, world_size=world_size)


class Peers:
    """Another process, whose value is known."""

    def __init__(self, other: Any) -> None:
        self.other = other
        self.own: Any = None

    def gather(self, value: Any) -> list[Any]:
        self.own = value
        return [value, self.other]


def test_two_processes_find_what_one_does(model: Any) -> None:
    whole: Any = TASK.evaluate(model, loader())
    first = Peers(("", {}))
    TASK.evaluate(model, loader(0, 2), peers=first)
    joint: Any = TASK.evaluate(model, loader(1, 2), peers=Peers(first.own))
    assert len(first.own[1]) == 5  # of 7 images: two of each batch of three, and the last
    assert asdict(joint) == asdict(whole)
    assert whole.images == 7
    assert sum(row.objects for row in whole.classes) == 10


def test_outputs_that_are_not_finite(model: Any) -> None:
    weight = model.roi_heads.box_predictor.bbox_pred.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] = float("inf")
    try:
        message = "the outputs of roi_heads.box_predictor are not finite, for batch 1 of scenes, .* with scene 0"
        with pytest.raises(NonFiniteError, match=message):
            TASK.evaluate(model, loader())
        with pytest.raises(NonFiniteError, match=message):
            TASK.evaluate(model, loader(), peers=Peers(("", {})))  # type: ignore[arg-type]
        with pytest.raises(NonFiniteError, match="are not finite, for images from 1 of 1 on"):
            senet.predict(model, [Scenes().read(0)])
    finally:
        with torch.no_grad():
            weight.copy_(before)


def test_data_without_an_object(model: Any, tmp_path: Path) -> None:
    first = annotations(0)
    none = replace(
        first, boxes=first.boxes[:0], categories=first.categories[:0], areas=first.areas[:0], crowd=first.crowd[:0]
    )
    data = BoxData("empty", Scenes(), [none], CLASSES)
    with pytest.raises(DataError, match="no image of empty has an object"):
        senet.evaluate(model, data)
    crowd = BoxData("groups", Scenes(), [replace(first, crowd=np.ones(len(first.boxes), dtype=bool))], CLASSES)
    for training, validation in ((scenes(), data), (scenes(), crowd)):
        with pytest.raises(DataError, match=f"no image of {validation.spec} has an object"):
            senet.train(NETWORK, (training, validation), recipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_predictions_are_torchvisions_in_pixels_of_the_image(model: Any, tmp_path: Path) -> None:
    image = Scenes().read(1).resize((112, 80))  # twice the size that the network gets
    image.save(tmp_path / "scene.png")
    (found,) = senet.predict(model, [tmp_path / "scene.png"], threshold=0.0)
    assert isinstance(found, BoxPrediction)
    pixels = torch.from_numpy(np.array(image.resize((56, 40), Image.Resampling.BILINEAR))).permute(2, 0, 1) / 255
    with torch.no_grad():
        (expected,) = model.eval()([pixels])
    assert len(found.boxes) == len(expected["boxes"]) > 3
    torch.testing.assert_close(torch.tensor(found.boxes), expected["boxes"] * 2, atol=1e-3, rtol=1e-4)
    assert found.classes == [CLASSES[label - 1] for label in expected["labels"]]
    assert found.probabilities == pytest.approx(expected["scores"].tolist())
    middle = found.probabilities[2]
    (some,) = senet.predict(model, [image], threshold=middle)
    assert len(some.probabilities) == 3
    (one,) = senet.predict(model, [image], threshold=0.0, top=1)
    assert one.classes == found.classes[:1]
    assert one.probabilities == pytest.approx(found.probabilities[:1])


@pytest.mark.parametrize("threshold", [2, -1, float("nan"), "a"])
def test_a_threshold_is_a_probability(model: Any, threshold: Any) -> None:
    with pytest.raises(ValueError, match="threshold must be from 0 to 1, got"):
        senet.predict(model, [Scenes().read(0)], threshold=threshold)


def test_a_file_of_predictions_has_the_boxes(tmp_path: Path) -> None:
    found = BoxPrediction("a.png", ["dark"], [0.9], boxes=[[4.0, 4.25, 24.0, 22.0]])
    write_predictions([found, BoxPrediction("b.png", [], [])], tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines() == [
        "image,class_1,probability_1,x1_1,y1_1,x2_1,y2_1",
        "a.png,dark,0.9,4.00,4.25,24.00,22.00",
        "b.png,,,,,,",
    ]


def test_a_threshold_is_of_detectors() -> None:
    network = senet.create_model("se_resnet20", num_classes=3)
    with pytest.raises(ValueError, match="threshold is for detectors, and this network has task=classification"):
        senet.predict(network, [Scenes().read(0)], threshold=0.5)


def test_labelled_images_have_their_boxes(model: Any, tmp_path: Path) -> None:
    """In any order of the classes."""
    data = scenes(4).with_classes(CLASSES[::-1])
    found = senet.predict(model, data, batch=3, threshold=0.0)
    assert [one.name for one in found] == ["scene 0", "scene 1", "scene 2", "scene 3"]
    assert [one.truth for one in found] == [CLASSES[: 1 + index % 2] for index in range(4)]
    assert [one.truth_boxes for one in found] == [boxes_of(index) for index in range(4)]  # type: ignore[attr-defined]
    assert {one.wrong for one in found} == {None}
    alone = senet.predict(model, [Scenes().read(2)], threshold=0.0)[0]
    assert alone.probabilities == pytest.approx(found[2].probabilities)
    assert alone.truth is None


def test_a_picture_has_the_boxes(tmp_path: Path) -> None:
    found = BoxPrediction("a/scene.png", ["dark"], [0.9], boxes=[[4.0, 4.0, 24.0, 22.0]])
    annotated = replace(found, truth=["bright"], truth_boxes=[[20.0, 16.0, 36.0, 38.0]])
    images = [Scenes().read(1)]
    pictures = []
    for name, one in (("plain", found), ("truth", annotated)):
        TASK.draw(images, [one], tmp_path / f"{name}.png")
        pictures.append(np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int))
    assert pictures[0].shape[1] == pictures[1].shape[1]
    bright, dark = ([int(COLOURS[number][place : place + 2], 16) for place in (1, 3, 5)] for number in (0, 1))
    for picture, colours in zip(pictures, ([bright], [bright, dark]), strict=True):  # in the order of the names
        assert all((abs(picture - colour).sum(2) < 9).any() for colour in colours)
    assert TASK.caption(["dark", "bright", "dark"], [0.9, 0.8, 0.7]) == "2 dark, 1 bright"
    assert TASK.caption([], []) == "none"


def test_few_whole_images_are_in_memory(model: Any) -> None:
    assert loader_for(model, scenes()).batch == 4
    assert loader_for(model, scenes(), InputOptions(batch=3)).batch == 3
    assert loader_for(senet.create_model("se_resnet20", num_classes=2), small_data(classes=2)).batch == 128
