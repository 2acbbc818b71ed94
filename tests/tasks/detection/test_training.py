import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import senet
from senet.data import open_loader
from senet.data.boxes import unpack
from senet.recipes import load_recipe
from senet.runs import Silent
from senet.tasks import ObjectiveContext, get_task, task_of
from senet.training import train
from senet.utils.errors import DataError, TrainingError
from tests.helpers import shallow_resnet20
from tests.tasks.detection.small import CLASSES, NETWORK, detector, recipe, splits
from tests.training.runs import KillAt, Killed, Notes, assert_same, assert_same_leaves, digits

TASK = get_task("detection")


@pytest.fixture(scope="module", autouse=True)
def _shallow() -> Iterator[None]:
    with shallow_resnet20():
        yield


def run(output: Path, *settings: str, **options: Any) -> senet.runs.Run:  # type: ignore[name-defined]
    return train(NETWORK, splits(), recipe(*settings), output, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Notes]:
    output, notes = tmp_path_factory.mktemp("runs") / "whole", Notes()
    run(output, reporter=notes)
    return output, notes


def test_a_run_ends_after_its_iterations(whole: tuple[Path, Notes]) -> None:
    output, notes = whole
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert notes.steps == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
    assert [line["lr"] for line in lines] == pytest.approx([0.01, 0.001])  # milestone after step 4
    parts = ("class", "box", "objectness", "proposal")
    for line in lines:
        assert line["train_loss"] == pytest.approx(sum(line[f"train_{part}_loss"] for part in parts))
    described = json.loads((output / "run.json").read_text())
    assert (described["task"], described["epochs"]) == ("detection", 2)
    assert run(output, resume=True).epochs[-1].ap == lines[-1]["ap"]  # complete: it trains nothing


def test_a_trained_network_evaluates_as_in_its_run(tmp_path: Path) -> None:
    """And is what the file holds. The memory format of a network that was read decides near ties of its scores."""
    model = detector()
    train(model, splits(), replace(recipe("iterations=2"), network={}), tmp_path / "run")
    found = TASK.values(senet.evaluate(model, splits()[1], batch=2))
    (line,) = (json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert found == {key: line[key] for key in found}
    assert (found["ap_medium"], found["ap_large"]) == (-1, -1)
    read = senet.load(tmp_path / "run" / "last.safetensors")
    assert task_of(read) is TASK
    assert (read.pretrained_cfg["min_size"], read.pretrained_cfg["max_size"]) == (40, 64)
    assert read.pretrained_cfg["label_names"] == CLASSES
    assert_same_leaves(read.state_dict(), model.state_dict())


def test_a_killed_run_resumes_with_the_same_bits(tmp_path: Path, whole: tuple[Path, Notes]) -> None:
    with pytest.raises(Killed):
        run(tmp_path / "run", "checkpoint_every=1", reporter=KillAt(1, 2))
    run(tmp_path / "run", "checkpoint_every=1", resume=True)
    assert_same(tmp_path / "run", whole[0])


def test_iterations_of_a_run_stay(tmp_path: Path, whole: tuple[Path, Notes]) -> None:
    with pytest.raises(ValueError, match=r"cannot resume a changed run: recipe.iterations was 5 and is 9"):
        run(whole[0], "iterations=9", resume=True)


def test_the_papers_recipe_runs(tmp_path: Path) -> None:
    settings = ["iterations=1", "batch=2", "resize=40", "max_size=64", "workers=0", "device=cpu"]
    found = train(detector(), splits(), load_recipe("coco-2x", settings), tmp_path / "run")
    assert found.epochs[0].lr == pytest.approx(0.002)
    assert load_recipe(tmp_path / "run" / "recipe.toml") == load_recipe("coco-2x", settings)


@pytest.mark.parametrize("network", [NETWORK, "retinanet:se_resnet20"])
def test_the_loss_is_torchvisions(network: str) -> None:
    """On the images without padding, with classes from 1 on, times the number of images."""
    model: Any = detector() if network == NETWORK else senet.create_model(network, num_classes=2, fpn_channels=8)
    settings = recipe()
    loader = open_loader(splits()[0], TASK.preprocessing(settings.preprocessing), batch=3)
    pixels, targets = next(loader.epoch())
    images = loader.preprocessing.normalize(pixels)
    objective = TASK.objective(
        ObjectiveContext(
            settings=settings,
            model=model,
            classes=2,
            labels=loader.labels,
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
    )
    model.train()
    torch.manual_seed(1)
    total, parts = objective.loss(model, images, targets, targets)
    torch.manual_seed(1)
    each = [unpack(target) for target in targets]
    cut = [image[:, : one.size[0], : one.size[1]] for image, one in zip(images, each, strict=True)]
    assert {tuple(image.shape[1:]) for image in cut} == {(40, 56), (56, 40)}
    assert all(image.max() <= 1 for image in cut)
    with model.transform.keeping_size():
        expected = model(cut, [{"boxes": one.boxes, "labels": one.classes + 1} for one in each])
    assert total.item() == pytest.approx(3 * sum(value.item() for value in expected.values()))
    assert [part.item() for part in parts] == pytest.approx(
        [3 * value.item() for value in expected.values()] + [0.0] * (4 - len(expected))
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["loss=asymmetric"], "loss=asymmetric is not available with task=detection; set loss=cross_entropy"),
        (["mixup=0.2"], "mixup=0.2 is not available with task=detection; set mixup=0.0"),
        (["class_weights=balanced"], "class_weights=balanced is not available"),
        (["sampling=balanced"], "sampling=balanced is not available"),
        (["crop=area"], "crop=area is not available"),
        (["randaugment=rand-m7"], "randaugment=rand-m7 is not available with task=detection; set randaugment=''"),
        (["compile=true"], "the shapes of a detector's tensors depend on the boxes that it finds"),
        (["resize=[64,48]"], r"resize must be a number with task=detection, .* got \[64, 48\]"),
        (["scales=[16,64]"], "scales must be from 32 to max_size=533 pixels with task=detection, got 16"),
        (["resize=640"], "resize must be from 32 to max_size=533 pixels"),
    ],
)
def test_values_of_classifiers_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("detection-small", settings)


def test_classifiers_and_images_without_boxes_are_refused(tmp_path: Path) -> None:
    settings = load_recipe("detection-small", ["iterations=2"])
    with pytest.raises(ValueError, match="se_resnet20 returns logits, .*: train faster_rcnn:se_resnet20 or"):
        train("se_resnet20", splits(), settings, tmp_path / "a")
    with pytest.raises(ValueError, match="unknown network 'faster_rcn:se_resnet20'; did you mean 'faster_rcnn:se_res"):
        train("faster_rcn:se_resnet20", splits(), settings, tmp_path / "a")
    with pytest.raises(DataError, match="has no boxes, which task=detection needs: give annotations of COCO"):
        train(NETWORK, digits(), settings, tmp_path / "b")
    with pytest.raises(ValueError, match="faster_rcnn:se_resnet20 returns boxes, and task=multilabel needs"):
        train(NETWORK, splits(), load_recipe("digits", ["task=multilabel", "epochs=1"]), tmp_path / "c")
    assert not list(tmp_path.iterdir())


class Breaks(Silent):
    """Makes a weight NaN when training starts."""

    def start(self, model: Any, *rest: Any) -> None:
        with torch.no_grad():
            model.backbone.fpn.inner_blocks[0][0].weight.fill_(float("nan"))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the loss is nan at step 1 of epoch 1"):
        run(tmp_path / "run", reporter=Breaks())
