"""The runs of a study folder: those that are complete and fit the plan, and why others are left out."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from senet.recipes.recipe import FREE
from senet.runs.comparison import FinishedRun, read_run
from senet.study.plan.plan import Plan, PlannedRun
from senet.study.plan.plan_file import load_plan
from senet.study.plan.se_keys import has_se, is_se_key
from senet.study.plan.study import StudyArm
from senet.study.running.run_folder import failure_of

__all__ = ["ArmRuns", "Cost", "LeftOut", "StudyResults", "cost_of", "read_results"]

# Options of a network that are no part of what it is.
NO_ARCHITECTURE = ("weights", "missing", "entry", "init", "num_classes", "in_channels")


@dataclass(frozen=True)
class LeftOut:
    """A planned run that the report does without.

    Attributes:
        arm: its name.
        seed: of the run.
        folder: where it is, or would be.
        reason: why, in a few words.
        failed: whether an error ended it, which is the reason then.
    """

    arm: str
    seed: int
    folder: Path
    reason: str
    failed: bool = False


@dataclass(frozen=True)
class Cost:
    """What a network takes.

    Attributes:
        parameters: as in `run.json`.
        macs: multiply-adds for an image; None where they cannot be counted.
    """

    parameters: int
    macs: int | None


@dataclass(frozen=True)
class ArmRuns:
    """An arm with its complete runs.

    Attributes:
        arm: of the study.
        runs: by seed; empty where none is complete.
    """

    arm: StudyArm
    runs: dict[int, FinishedRun]

    @property
    def errors(self) -> dict[int, float]:
        """Top-1 error in percent after the last epoch, by seed.

        Not of the best epoch, which is selected on the images that it is measured on, and too low for that.
        """
        return {seed: float(run.epochs[-1]["top1_error"]) for seed, run in self.runs.items()}

    @property
    def seconds(self) -> float | None:
        """Of training an epoch, the median of all epochs of all runs; None without runs."""
        epochs = [epoch["seconds"] for run in self.runs.values() for epoch in run.epochs]
        return float(np.median(epochs)) if epochs else None

    @cached_property
    def cost(self) -> Cost | None:
        """Of the network; None without runs."""
        return next((cost_of(run) for run in self.runs.values()), None)


@dataclass(frozen=True)
class StudyResults:
    """A study as far as it has got.

    Attributes:
        plan: in force.
        arms: in the study's order, which is the paper's.
        left_out: planned runs that are missing, incomplete or do not fit, in the plan's order.
    """

    plan: Plan
    arms: tuple[ArmRuns, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def runs(self) -> list[FinishedRun]:
        """All that are complete."""
        return [run for arm in self.arms for run in arm.runs.values()]


def read_results(folder: str | PathLike[str]) -> StudyResults:
    """Read what a study has got to.

    Args:
        folder: of `senet study`.

    Raises:
        ValueError: it is no study folder, or has no complete run yet.
    """
    plan = load_plan(Path(folder))
    arms: dict[str, dict[int, FinishedRun]] = {arm.name: {} for arm in plan.study.arms}
    left_out = []
    first: FinishedRun | None = None
    for planned in plan.runs:
        try:
            run = _complete(planned)
            _check_recipe(run, plan, planned)
            if first is not None:
                _check_images(run, first)
        except ValueError as error:
            failure = failure_of(planned)
            reason = f"failed: {failure} ({error})" if failure else str(error)
            left_out.append(LeftOut(planned.arm.name, planned.seed, planned.folder, reason, bool(failure)))
            continue
        first = first or run
        arms[planned.arm.name][planned.seed] = run
    if first is None:
        why = f"{left_out[0].arm} with seed {left_out[0].seed}: {left_out[0].reason}" if left_out else "it plans none"
        raise ValueError(f"{folder} has no complete run to report; {why}")
    return StudyResults(plan, tuple(ArmRuns(arm, arms[arm.name]) for arm in plan.study.arms), tuple(left_out))


def cost_of(run: FinishedRun) -> Cost:
    """Parameters and multiply-adds of a run's network, on images of the size that it was trained on."""
    from senet.costs.cost import cost
    from senet.costs.tables import image_size, without_memory

    options = network_options(run)
    try:
        model = without_memory(run.network, num_classes=run.images.get("classes"), **options)
        macs = cost(model, image_size(model, run.settings["crop_size"]), activations=False).macs
    except (ValueError, TypeError):  # such as one that was given built, whose name is of no catalogue
        return Cost(run.parameters, None)
    return Cost(run.parameters, macs)


def network_options(run: FinishedRun) -> dict[str, Any]:
    """What a run's settings say of its network's architecture, as options of `senet.create_model`."""
    found = {key.removeprefix("network."): v for key, v in run.settings.items() if key.startswith("network.")}
    return {key: value for key, value in found.items() if key not in NO_ARCHITECTURE}


def _complete(planned: PlannedRun) -> FinishedRun:
    """The run that was planned.

    Raises:
        ValueError: it is not there or not complete, or another one is in its folder.
    """
    if not planned.folder.is_dir():
        raise ValueError("not started")
    if not (planned.folder / "run.json").is_file() or not (planned.folder / "metrics.jsonl").is_file():
        raise ValueError("no epoch is complete")
    run = read_run(planned.folder)
    done, epochs = len(run.epochs), run.settings["epochs"]
    if done != epochs:
        raise ValueError(f"{done} of {epochs} epochs")
    if run.network != planned.arm.network:
        raise ValueError(f"it is a run of {run.network}, and the arm is of {planned.arm.network}")
    return run


def _check_recipe(run: FinishedRun, plan: Plan, planned: PlannedRun) -> None:
    """Whether a run has the recipe that the plan gives it, but for what changes no result.

    Raises:
        ValueError: it has another value; the message names the first.
    """
    recipe = asdict(plan.recipe_of(planned))
    expected = recipe | {f"network.{key}": value for key, value in recipe.pop("network").items()}
    expected.pop("network", None)
    free = set(FREE)
    if not has_se(planned.arm.network):  # where these change nothing
        free |= set(filter(is_se_key, run.settings.keys() | expected.keys()))
    for key in sorted((run.settings.keys() | expected.keys()) - free):
        there, wanted = (json.loads(json.dumps(each.get(key), default=str)) for each in (run.settings, expected))
        if there != wanted:
            raise ValueError(f"its {key} is {there}, and the plan's {wanted}")


def _check_images(run: FinishedRun, first: FinishedRun) -> None:
    """Whether two runs have the same images.

    Raises:
        ValueError: they have not.
    """
    where = f"{first.path.parent.name}/{first.path.name}"
    if run.images != first.images:
        raise ValueError(f"it was validated on {run.validation}, not on the images of {where}")
    if run.training != first.training:
        raise ValueError(f"it was trained on {run.data}, not on the images of {where}")
