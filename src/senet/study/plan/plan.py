"""A study's plan: its arms, data, recipe and seeds, and the runs that follow from them, in one folder.

DIR/study.json              the plan
DIR/recipe.toml             the recipe that all runs share, with all values
DIR/runs/ARM/seed-N/        an output folder of `senet train`
DIR/runs/ARM/seed-N.log     the output of that command
DIR/runs/ARM/.seed-N.status its latest exit status
DIR/report.*                the output of `senet study report`
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from senet.recipes import load_recipe
from senet.recipes.recipe import build_recipe
from senet.recipes.toml import apply_settings
from senet.study.plan.se_keys import has_se, se_values, without_se
from senet.study.plan.study import Study, StudyArm
from senet.utils.isolation import python_module

__all__ = ["RECIPE", "STUDY", "Plan", "PlannedRun", "key_of"]

STUDY = "study.json"
RECIPE = "recipe.toml"


@dataclass(frozen=True)
class PlannedRun:
    """A run of a plan: an arm, a seed, and the output folder of its `senet train`."""

    arm: StudyArm
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """Name for messages: "plain seed 0"."""
        return f"{self.arm.name} seed {self.seed}"

    @property
    def log(self) -> Path:
        """Output of its command."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def status_file(self) -> Path:
        """Exit status of its latest command, written by the study that ran it."""
        return self.folder.with_name(f".{self.folder.name}.status")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The runs of a study.

    Attributes:
        study: the arms.
        data, val_data, val_fraction, skip_bad: see `senet.train`.
        recipe: name or path of the recipe, as given.
        settings: settings of the recipe, for every arm.
        seeds: each arm is run with each seed.
        folder: the study's folder.
        values: all values of the recipe with the settings, except the seed; read from the recipe unless given.
    """

    study: Study
    data: str
    val_data: str | None
    val_fraction: float | None
    recipe: str
    settings: tuple[str, ...]
    seeds: tuple[int, ...]
    folder: Path
    skip_bad: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.values:
            object.__setattr__(self, "values", _json_values(asdict(load_recipe(self.recipe, self.settings))))

    @property
    def runs(self) -> tuple[PlannedRun, ...]:
        """All runs: all arms with the first seed, then all with the next, so that pairs are complete early."""
        return tuple(
            PlannedRun(arm, seed, self.folder / "runs" / arm.name / f"seed-{seed}")
            for seed in self.seeds
            for arm in self.study.arms
        )

    @property
    def shared_values(self) -> dict[str, Any]:
        """Values of the recipe that all arms share: those that are not about SE."""
        return without_se(self.values)

    def settings_of(self, run: PlannedRun) -> tuple[str, ...]:
        """Return the settings of a run on top of the shared recipe: the seed, the recipe's SE values, the arm's own.

        An arm without SE takes no SE values. An arm's own settings replace the recipe's.
        """
        from_recipe: list[str] = []
        if has_se(run.arm.network):
            own = {key_of(setting) for setting in run.arm.settings}
            values = se_values(self.values)
            from_recipe = [f"{key}={json.dumps(value)}" for key, value in values.items() if key not in own]
        return (f"seed={run.seed}", *from_recipe, *run.arm.settings)

    def recipe_of(self, run: PlannedRun) -> Any:
        """Return the `senet.recipes.Recipe` of a run.

        Raises:
            ValueError: a setting of the arm is invalid.
        """
        return build_recipe(apply_settings(self.shared_values, self.settings_of(run)))

    def command(self, run: PlannedRun) -> list[str]:
        """Return the arguments of the `senet train` command that starts or resumes a run."""
        command = python_module("senet", ["train", run.arm.network, "--data", self.data])
        if self.val_data is not None:
            command += ["--val-data", self.val_data]
        if self.val_fraction is not None:
            command += ["--val-fraction", str(self.val_fraction)]
        command += ["--recipe", str(self.folder / RECIPE)]
        for setting in self.settings_of(run):
            command += ["--set", setting]
        return [*command, *(["--skip-bad"] if self.skip_bad else []), "--output", str(run.folder), "--resume"]


def key_of(setting: str) -> str:
    """Return the key of a setting: "lr" of "lr=0.1"."""
    return setting.partition("=")[0].strip()


def _json_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they are after a round trip through JSON, without the seed."""
    return {key: value for key, value in json.loads(json.dumps(values, default=str)).items() if key != "seed"}
