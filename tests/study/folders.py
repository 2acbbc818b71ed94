"""Study folders with errors that are given, as `senet study` leaves them, without models."""

import json
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from senet.recipes import Recipe, write_recipe
from senet.study.plan.make_plan import make_plan
from senet.study.plan.named_studies import open_study
from senet.study.plan.plan import Plan, PlannedRun
from senet.study.plan.plan_file import save_plan
from senet.study.plan.study import Study
from senet.tasks import get_task

IMAGES = {"images": 5000, "classes": 10, "names and labels": "1234", "class names": "5678"}
EPOCHS = 2


def write_run(
    folder: Path, network: str, recipe: Recipe, errors: list[float], about: Mapping[str, Any] | None = None
) -> Path:
    """A run with these top-1 errors."""
    folder.mkdir(parents=True)
    write_recipe(recipe, folder / "recipe.toml")
    description = {
        "network": network,
        "data": "cifar",
        "validation": "cifar/val",
        "training data": {"images": 50_000, "names and labels": "abcd"},
        "validation data": IMAGES,
        "parameters": 272_095,
    }
    (folder / "run.json").write_text(json.dumps(description | dict(about or {})))
    lines = [
        {"epoch": epoch, "loss": error / 20, "top1_error": error, "top5_error": error / 4, "seconds": 10.0 + epoch}
        for epoch, error in zip(count(1), errors, strict=False)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def precision_of(number: int, ap: float, ap50: float) -> str:
    """A line of `metrics.jsonl` of a detector."""
    others = {metric.key: 1.0 for metric in get_task("detection").validation}
    return json.dumps(others | {"epoch": number, "ap": ap, "ap50": ap50, "seconds": 9.0}) + "\n"


def plan_study(folder: Path, study: Study | None = None, *, seeds: int = 3, settings: tuple[str, ...] = ()) -> Plan:
    """A plan of two epochs: of placements of SE in ResNet-20, unless another study is given."""
    study = open_study("placement", "resnet20") if study is None else study
    both = (f"epochs={EPOCHS}", "warmup=1", *settings)
    return save_plan(make_plan(study, data="digits", recipe="digits", seeds=seeds, folder=folder, settings=both))


def write_study(
    folder: Path,
    errors: Callable[[PlannedRun], float | None],
    study: Study | None = None,
    *,
    seeds: int = 3,
    about: Mapping[str, Any] | None = None,
) -> Plan:
    """A study whose runs end with these errors, their first epoch being one point lower; None is not started."""
    plan = plan_study(folder, study, seeds=seeds)
    for run in plan.runs:
        last = errors(run)
        if last is not None:
            write_run(run.folder, run.arm.network, plan.recipe_of(run), [last - 1, last], about)
    return plan


def by_arm(**errors: list[float | None]) -> Callable[[PlannedRun], float | None]:
    """Errors by arm and seed; of arms and seeds that are not given, none."""

    def find(run: PlannedRun) -> float | None:
        there = errors.get(run.arm.name, [])
        return there[run.seed] if run.seed < len(there) else None

    return find
