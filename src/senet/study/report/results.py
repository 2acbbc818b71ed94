"""Read the runs of a study's folder: those that are complete and match the plan, and why others do not count."""

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from senet.costs.cost import cost
from senet.costs.tables import build_on_meta, image_size
from senet.recipes.recipe import FREE
from senet.runs.finished import FinishedRun, read_run
from senet.runs.folder import RunFolder
from senet.study.plan.plan import Plan, PlannedRun
from senet.study.plan.plan_file import load_plan
from senet.study.plan.se_keys import has_se, is_se_key
from senet.study.plan.study import StudyArm
from senet.study.running.run_status import error_of
from senet.tasks import get_task

__all__ = ["ArmRuns", "Cost", "MissingRun", "StudyResults", "cost_of", "read_results"]

# Metric of the paper's rows that a study has.
PAPER_METRIC = "top1_error"
# Options of `senet.create_model` that do not change the architecture, or are given otherwise.
NO_ARCHITECTURE = ("weights", "backbone_weights", "missing", "entry", "init", "num_classes", "in_channels")


@dataclass(frozen=True)
class MissingRun:
    """A planned run without a result.

    Attributes:
        arm: name of the arm.
        seed: seed of the run.
        folder: folder of the run, which may not exist.
        reason: why there is no result, in a few words.
        failed: whether the run ended with an error.
    """

    arm: str
    seed: int
    folder: Path
    reason: str
    failed: bool = False


@dataclass(frozen=True)
class Cost:
    """The cost of a network.

    Attributes:
        parameters: number of parameters, from `run.json`.
        macs: multiply-adds of the task's `trunk` for one image; None where the network cannot be built.
        size: height and width of that image.
    """

    parameters: int
    macs: int | None
    size: tuple[int, int]


@dataclass(frozen=True)
class ArmRuns:
    """An arm with its complete runs.

    Attributes:
        arm: the arm in its study.
        runs: complete runs by seed.
    """

    arm: StudyArm
    runs: dict[int, FinishedRun]

    @property
    def errors(self) -> dict[int, float]:
        """The task's decisive metric after the last epoch, by seed: the top-1 error in percent of a classifier.

        The best epoch's value would be too good: the epoch is selected on the images that it is measured on.
        """
        return {seed: float(run.epochs[-1][run.task.decisive.key]) for seed, run in self.runs.items()}

    @property
    def seconds(self) -> float | None:
        """Seconds to train an epoch, median over all epochs of all runs; None without runs."""
        epochs = [epoch["seconds"] for run in self.runs.values() for epoch in run.epochs]
        return float(np.median(epochs)) if epochs else None

    @cached_property
    def cost(self) -> Cost | None:
        """Cost of the network; None without runs."""
        return next((cost_of(run) for run in self.runs.values()), None)


@dataclass(frozen=True)
class StudyResults:
    """The runs of a study.

    Attributes:
        plan: the study's plan.
        arms: in the study's order.
        missing: planned runs without a result, in the plan's order.
    """

    plan: Plan
    arms: tuple[ArmRuns, ...]
    missing: tuple[MissingRun, ...]

    @property
    def runs(self) -> list[FinishedRun]:
        """All complete runs."""
        return [run for arm in self.arms for run in arm.runs.values()]


def read_results(folder: str | PathLike[str]) -> StudyResults:
    """Read the runs of a study.

    Args:
        folder: output folder of `senet study`.

    Raises:
        ValueError: it is not a study folder, or has no complete run yet.
    """
    plan = _without_other_metrics(load_plan(Path(folder)))
    arms: dict[str, dict[int, FinishedRun]] = {arm.name: {} for arm in plan.study.arms}
    missing = []
    first: FinishedRun | None = None
    for planned in plan.runs:
        try:
            run = _complete(planned)
            _check_recipe(run, plan, planned)
            if first is not None:
                _check_images(run, first)
        except ValueError as error:
            failure = error_of(planned)
            reason = f"failed: {failure} ({error})" if failure else str(error)
            missing.append(MissingRun(planned.arm.name, planned.seed, planned.folder, reason, bool(failure)))
            continue
        first = first or run
        arms[planned.arm.name][planned.seed] = run
    if first is None:
        why = f"{missing[0].arm} with seed {missing[0].seed}: {missing[0].reason}" if missing else "it plans none"
        raise ValueError(f"{folder} has no complete run to report; {why}")
    return StudyResults(plan, tuple(ArmRuns(arm, arms[arm.name]) for arm in plan.study.arms), tuple(missing))


def _without_other_metrics(plan: Plan) -> Plan:
    """Return a plan without the paper's rows, which are top-1 errors, if its runs are judged by another metric."""
    if get_task(plan.recipe_of(plan.runs[0]).task).decisive.key == PAPER_METRIC:
        return plan
    arms = tuple(replace(arm, entry=None) for arm in plan.study.arms)
    return replace(plan, study=replace(plan.study, table="", arms=arms))


def cost_of(run: FinishedRun) -> Cost:
    """Count the parameters and multiply-adds of a run's network, on images of the size that it was trained on."""
    options, size = network_options(run), run.task.preprocessing(run.recipe.preprocessing).size
    try:
        model = build_on_meta(run.network, num_classes=run.images.get("classes"), **options)
        macs = cost(run.task.trunk(model), image_size(model, size), activations=False).macs
    except (
        ValueError,
        TypeError,
    ):  # such as a module that was passed to `senet.train`
        return Cost(run.parameters, None, size)
    return Cost(run.parameters, macs, size)


def network_options(run: FinishedRun) -> dict[str, Any]:
    """Return the options of `senet.create_model` that give a run's architecture."""
    return {key: value for key, value in run.recipe.network.items() if key not in NO_ARCHITECTURE}


def _complete(planned: PlannedRun) -> FinishedRun:
    """Read a planned run.

    Raises:
        ValueError: the run is missing or incomplete, or its folder has another network's run.
    """
    if not planned.folder.is_dir():
        raise ValueError("not started")
    folder = RunFolder(planned.folder)
    if not folder.is_run or not folder.metrics.is_file():
        raise ValueError("no epoch is complete")
    run = read_run(planned.folder)
    done, epochs = len(run.epochs), run.all_epochs
    if done != epochs:
        raise ValueError(f"{done} of {epochs} epochs")
    if run.network != planned.arm.network:
        raise ValueError(f"its network is {run.network}, the arm's is {planned.arm.network}")
    return run


def _check_recipe(run: FinishedRun, plan: Plan, planned: PlannedRun) -> None:
    """Check that a run has the plan's recipe, except for keys that change no result.

    Raises:
        ValueError: a value differs; the message names the first.
    """
    recipe = asdict(plan.recipe_of(planned))
    expected = recipe | {f"network.{key}": value for key, value in recipe.pop("network").items()}
    expected.pop("network", None)
    free = set(FREE)
    if not has_se(planned.arm.network):  # they have no effect there
        free |= set(filter(is_se_key, run.settings.keys() | expected.keys()))
    for key in sorted((run.settings.keys() | expected.keys()) - free):
        there, wanted = (json.loads(json.dumps(each.get(key), default=str)) for each in (run.settings, expected))
        if there != wanted:
            raise ValueError(f"its {key} is {there}, the plan's is {wanted}")


def _check_images(run: FinishedRun, first: FinishedRun) -> None:
    """Check that two runs have the same images.

    Raises:
        ValueError: they do not.
    """
    where = f"{first.path.parent.name}/{first.path.name}"
    if run.images != first.images:
        raise ValueError(f"it was validated on {run.validation}, not on the images of {where}")
    if run.training != first.training:
        raise ValueError(f"it was trained on {run.data}, not on the images of {where}")
