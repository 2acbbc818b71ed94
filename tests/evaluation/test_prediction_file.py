import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import senet
from senet.data import ImageData, MultiLabelData
from senet.evaluation import Prediction, write_predictions
from senet.utils.errors import DataError
from tests.training.small import Pictures


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_a_line_for_each_image(tmp_path: Path) -> None:
    found = [Prediction("a, b.png", ["cat", 'the "dog"'], [0.75, 0.25]), Prediction("c.png", ["cat"], [1 / 3])]
    write_predictions(found, tmp_path / "out.csv")
    assert rows(tmp_path / "out.csv") == [
        ["image", "class_1", "probability_1", "class_2", "probability_2"],
        ["a, b.png", "cat", "0.75", 'the "dog"', "0.25"],
        ["c.png", "cat", "0.333333", "", ""],
    ]


def test_labelled_images_have_their_truth(tmp_path: Path) -> None:
    none = Prediction("b", [], [], truth=[], wrong=False)
    write_predictions([Prediction("a", ["cat"], [0.5], truth=["cat", "dog"], wrong=True), none], tmp_path / "out.csv")
    assert rows(tmp_path / "out.csv") == [
        ["image", "truth", "wrong", "class_1", "probability_1"],
        ["a", "cat;dog", "1", "cat", "0.5"],
        ["b", "", "0", "", ""],
    ]


def network(bias: list[float]) -> torch.nn.Module:
    model = senet.create_model("resnet20", num_classes=3)
    torch.nn.init.zeros_(model.fc.weight)
    model.fc.bias.data = torch.tensor(bias)
    return model


def test_errors_are_those_of_the_networks_classes() -> None:
    data = ImageData("pictures", Pictures(), np.array([0, 1, 2, 0]), ["c", "b", "a"])
    model = network([1.0, 0.0, -1.0])
    model.pretrained_cfg |= {"label_names": ["a", "b", "c"]}
    found = senet.predict(model, data, top=1, resize=8, crop=8, batch=3)
    assert [(p.name, p.classes, p.truth, p.wrong) for p in found] == [
        (data.name(0), ["a"], ["c"], True),
        (data.name(1), ["a"], ["b"], True),
        (data.name(2), ["a"], ["a"], False),
        (data.name(3), ["a"], ["c"], True),
    ]
    (expected,) = senet.predict(model, [data[0][0]], top=1, resize=8, crop=8)
    assert expected.probabilities == pytest.approx(found[0].probabilities)
    assert (expected.truth, expected.wrong) == (None, None)
    with pytest.raises(DataError, match="classes that training lacks"):
        senet.predict(model, ImageData("pictures", Pictures(), np.zeros(1), ["other"]))


def test_every_label_of_several_must_be_right() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    data = MultiLabelData("pictures", Pictures(), labels, ["a", "b", "c"])
    model = network([1.0, 0.5, -1.0])
    model.pretrained_cfg |= {"label_names": ["a", "b", "c"], "task": "multilabel"}
    for top in (None, 1):  # what is shown does not change what is right
        found = senet.predict(model, data, top=top, resize=8, crop=8)
        assert [p.wrong for p in found] == [False, True, True]
        assert [p.truth for p in found] == [["a", "b"], ["a"], []]
