"""What a plan will take: counted for each arm, and timed by steps of its recipe."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import senet
from senet.recipes import load_recipe
from senet.study.plan import estimates
from senet.study.plan.estimates import estimate_arms
from senet.study.plan.make_plan import make_plan
from senet.study.plan.named_studies import open_study
from senet.study.plan.plan import Plan
from senet.training import Trainer
from tests.data.coco_sets import write_coco
from tests.helpers import noting
from tests.images import write_classes


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Twelve images in batches of two; four to evaluate on."""
    write_classes(tmp_path / "data" / "train", {"cat": 6, "dog": 6})
    write_classes(tmp_path / "data" / "val", {"cat": 3, "dog": 1})
    settings = ("epochs=3", "warmup=1", "batch=2", "device=cpu", "workers=0")
    return make_plan(
        open_study("conv3x3", "resnet20"),
        data=str(tmp_path / "data"),
        recipe="digits",
        seeds=2,
        folder=tmp_path / "study",
        settings=settings,
    )


def test_parameters_and_macs_are_those_of_the_runs(plan: Plan) -> None:
    found = list(estimate_arms(plan, threads=1, timed=False))
    assert [one.arm for one in found] == list(plan.study.arms)
    for one in found:
        options = load_recipe("digits", one.arm.settings).network
        model = senet.create_model(one.arm.network, num_classes=2, **options)
        assert one.params == sum(p.numel() for p in model.parameters())
        assert one.macs == senet.cost(model, (3, 32, 32)).macs
        assert (one.step, one.seconds) == (None, None)


def test_time_is_that_of_all_steps(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a step takes 50 ms, but the first, and an evaluation 20 ms a batch."""
    steps: list[int] = []
    threads: set[int] = set()

    clock = [0.0]

    def take(seconds: float) -> None:
        clock[0] += seconds

    def step(self: Trainer, pixels: Any, labels: Any) -> None:
        threads.add(torch.get_num_threads())
        steps.append(len(labels))
        take(0.3 if len(steps) == 1 else 0.05)

    monkeypatch.setattr(estimates, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(Trainer, "train_step", step)
    monkeypatch.setattr(estimates, "_infer", lambda *_: take(0.02))
    before = torch.get_num_threads()
    first = next(estimate_arms(plan, threads=2))
    assert threads == {2}
    assert torch.get_num_threads() == before
    assert steps == [2] * 6
    assert first.step == pytest.approx(0.05)
    # Three epochs of six steps, and of two batches to evaluate.
    assert first.seconds == pytest.approx(3 * (6 * 0.05 + 2 * 0.02))


@pytest.mark.parametrize(
    ("network", "settings"),
    [
        ("resnet20", ("task=multilabel", "epochs=3", "crop_size=32", "resize=32", "crop=pad")),
        ("faster_rcnn:resnet20", ("iterations=5", "milestones=[4]", "warmup=1", "resize=32", "scales=[32]")),
    ],
)
def test_other_tasks(network: str, settings: tuple[str, ...], tmp_path: Path) -> None:
    """Five images in batches of two, the last of which is not full: three epochs of two steps."""
    data = f"coco:{write_coco(tmp_path / 'data')}"
    common = ("batch=2", "device=cpu", "workers=0", *settings)
    recipe = "detection-small" if ":" in network else "digits"
    study = open_study("conv3x3", network).only(["standard"])
    plan = make_plan(study, data=data, recipe=recipe, seeds=1, folder=tmp_path / "study", settings=common)
    (found,) = estimate_arms(plan, threads=1)
    assert found.epochs == 3
    assert found.step is not None
    assert found.seconds is not None
    assert found.seconds > 5 * found.step


def test_few_steps_where_they_take_long(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(estimates, "_SECONDS", 0.05)
    monkeypatch.setattr(Trainer, "train_step", noting(steps, lambda *_: 1, lambda *_: time.sleep(0.1)))
    next(estimate_arms(plan, threads=1))
    assert len(steps) == 2


def test_steps_are_real_ones(plan: Plan) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    found = list(estimate_arms(plan, threads=1))
    assert torch.equal(torch.rand(1), expected)  # the generator is as it was
    assert all(one.step and one.seconds and one.seconds > 18 * one.step for one in found)
    assert not plan.folder.exists()
