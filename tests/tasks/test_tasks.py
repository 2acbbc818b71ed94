"""Rules that every task keeps, since training, reports and files rely on them."""

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from senet.recipes import load_recipe
from senet.runs import Epoch, Run
from senet.tasks import get_task, store_task, task_of
from senet.training.epoch_state import EpochState
from senet.utils.choices import TaskName

NAMES = get_args(TaskName)
EACH = pytest.mark.parametrize("name", NAMES)


@EACH
def test_metrics_are_keys_of_an_epoch(name: str) -> None:
    task = get_task(name)
    keys = [metric.key for metric in task.metrics]
    assert task.name == name
    assert len(set(keys)) == len(keys)
    assert not set(keys) & {field.name for field in fields(Epoch)}
    assert task.decisive in task.validation
    assert task.panels[0].validation is task.decisive


@EACH
def test_counters_are_entries_of_a_checkpoint(name: str) -> None:
    task = get_task(name)
    assert not set(task.counters) & ({field.name for field in fields(EpochState)} | {"model", "optimizer", "epochs"})
    state = EpochState(images=3, counts=dict.fromkeys(task.counters, 2.0))
    assert EpochState.from_state_dict(state.state_dict(), task.counters) == state
    assert set(task.training_values(0.5, state.counts, 3)) == {metric.key for metric in task.training}


@EACH
def test_the_best_epoch_is_the_first_of_the_best(name: str) -> None:
    task = get_task(name)
    rows = [
        {
            "epoch": n,
            "lr": 0.1,
            "seconds": 1.0,
            "images_per_second": 1.0,
            **dict.fromkeys((m.key for m in task.metrics), v),
        }
        for n, v in enumerate((2.0, 1.0, 3.0, 1.0, 3.0), 1)
    ]
    epochs = [Epoch.from_row(row, task) for row in rows]
    assert [epoch.as_row() for epoch in epochs] == [row | {"nonfinite_steps": 0} for row in rows]
    best = Run(Path("run"), epochs, task=task).best
    assert best is epochs[1 if task.decisive.better == "lower" else 2]


def test_an_epoch_needs_every_metric_and_no_other() -> None:
    task = get_task("multilabel")
    row = {metric.key: 1.0 for metric in task.metrics} | {"epoch": 1, "lr": 0.1, "seconds": 1.0}
    with pytest.raises(TypeError, match="top1_error"):
        Epoch.from_row(row | {"images_per_second": 1.0, "top1_error": 1.0}, task)
    del row["map"]
    with pytest.raises(KeyError, match="map"):
        Epoch.from_row(row, task)


def test_an_unknown_task_names_the_closest() -> None:
    with pytest.raises(ValueError, match="unknown task 'multilable'; did you mean 'multilabel'"):
        get_task("multilable")
    with pytest.raises(ValueError, match="unknown task 'clasification'; did you mean 'classification'"):
        load_recipe("digits", ["task=clasification"])


@pytest.mark.parametrize(
    "setting", ["mixup=0.2", "cutmix=1.0", "label_smoothing=0.1", 'class_weights="balanced"', 'sampling="balanced"']
)
def test_what_needs_one_class_is_refused(setting: str) -> None:
    key = setting.partition("=")[0]
    with pytest.raises(ValueError, match=f"{key}=.* needs one class per image, task=classification; set {key}="):
        load_recipe("digits", ["task=multilabel", setting])
    with pytest.raises(ValueError, match="loss=asymmetric needs task=multilabel; set loss=cross_entropy"):
        load_recipe("digits", ["loss=asymmetric"])


def test_a_network_names_its_task_unless_it_classifies() -> None:
    model: Any = SimpleNamespace(pretrained_cfg={"mean": 0.5})
    store_task(model, get_task("multilabel"))
    assert task_of(model) is get_task("multilabel")
    model.pretrained_cfg["thresholds"] = [0.5]
    store_task(model, get_task("classification"))
    assert model.pretrained_cfg == {"mean": 0.5}  # as in files of earlier versions
    assert task_of(model) is get_task("classification")
