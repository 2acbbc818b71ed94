import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import senet
from senet.data import MultiLabelData
from senet.tasks import task_of
from senet.tasks.multilabel import MultiLabelEvaluation
from senet.training import train
from senet.utils.errors import DataError
from tests.helpers import shallow_resnet20
from tests.images import picture
from tests.training.runs import KillAt, Killed, assert_same, recipe
from tests.training.small import Pictures

CLASSES = ["round", "even", "third"]


def splits() -> tuple[MultiLabelData, MultiLabelData]:
    labels = np.array([[n % 2, n % 3 == 0, n % 4 == 0] for n in range(20)], dtype=np.uint8)
    data = MultiLabelData("tagged", Pictures(), labels, CLASSES)
    return data, data.subset(np.arange(9))  # type: ignore[return-value]


def run(output: Path, *settings: str, **options: object) -> senet.runs.Run:  # type: ignore[name-defined]
    network = "se_resnet20"
    return train(network, splits(), recipe("task=multilabel", "ema=0.9", "epochs=2", *settings), output, **options)  # type: ignore[arg-type]


@pytest.fixture(autouse=True, scope="module")
def _quick(quick_curves: None) -> Iterator[None]:
    with shallow_resnet20():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, _quick: None) -> Path:
    output = tmp_path_factory.mktemp("runs") / "whole"
    run(output)
    return output


def test_a_run_leaves_metrics_and_thresholds(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert json.loads((whole / "run.json").read_text())["task"] == "multilabel"
    model = senet.load(whole / "last.safetensors")
    assert task_of(model).name == "multilabel"
    found = senet.evaluate(model, splits()[1])
    assert isinstance(found, MultiLabelEvaluation)
    assert (found.map, found.f1, found.label_error) == pytest.approx(
        [lines[-1][k] for k in ("map", "f1", "label_error")]
    )
    assert list(model.pretrained_cfg["thresholds"]) == pytest.approx(found.thresholds)
    # The thresholds have the highest F1 of each label on these images.
    assert found.stored_f1 >= found.f1 - 1e-9


@pytest.mark.parametrize("at", [(1, 1), (2, 2)])
def test_a_killed_run_resumes_with_the_same_bits(tmp_path: Path, whole: Path, at: tuple[int, int]) -> None:
    with pytest.raises(Killed):
        run(tmp_path / "run", "checkpoint_every=1", reporter=KillAt(*at))
    run(tmp_path / "run", "checkpoint_every=1", resume=True)
    assert_same(tmp_path / "run", whole)
    thresholds = [
        senet.load(path / "last.safetensors").pretrained_cfg["thresholds"] for path in (tmp_path / "run", whole)
    ]
    assert thresholds[0] == thresholds[1]


def test_images_that_are_not_in_memory_give_the_same_bits(tmp_path: Path, whole: Path) -> None:
    run(tmp_path / "run", "memory=0")
    found, expected = (senet.load(path / "last.safetensors").state_dict() for path in (tmp_path / "run", whole))
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_run_killed_before_it_published_has_its_thresholds(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    expected = (tmp_path / "run" / "last.safetensors").read_bytes()
    (tmp_path / "run" / "metrics.jsonl").unlink()
    (tmp_path / "run" / "last.safetensors").unlink()
    run(tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == expected


def test_predictions_are_the_labels_above_their_thresholds(whole: Path, tmp_path: Path) -> None:
    model = senet.load(whole / "last.safetensors")
    image = picture(3, 8, 8)
    model.pretrained_cfg["thresholds"] = [0.0, 1.0, 0.0]
    (found,) = senet.predict(model, [image])
    assert sorted(found.classes) == ["round", "third"]
    assert found.probabilities == sorted(found.probabilities, reverse=True)
    (found,) = senet.predict(model, [image], top=1)
    assert len(found.classes) == 1
    model.pretrained_cfg["thresholds"] = [1.0, 1.0, 1.0]
    (found,) = senet.predict(model, [image])
    assert not found.classes
    assert not found.probabilities


def test_one_class_per_image_is_one_label(whole: Path) -> None:
    data = senet.open_data("digits", "val").subset(np.arange(30))
    tagged = MultiLabelData.of(data)
    assert torch.equal(torch.from_numpy(tagged.labels).long().argmax(1), torch.from_numpy(data.labels))
    assert (tagged.labels.sum(1) == 1).all()
    assert MultiLabelData.of(tagged) is tagged


def test_several_labels_are_not_classified(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tagged has .* images with several labels or none.*--task multilabel"):
        train("se_resnet20", splits(), recipe(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
