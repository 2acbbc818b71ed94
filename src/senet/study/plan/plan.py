"""A study's plan: its arms, data, recipe and seeds, in a folder that keeps it.

    DIR/study.json          the plan
    DIR/recipe.toml         the recipe that every run starts from, all values in force
    DIR/runs/ARM/seed-N/    an output folder of `senet train`
    DIR/runs/ARM/seed-N.log what that command printed
    DIR/runs/ARM/.seed-N.status its latest exit status
    DIR/report.*            what `senet study report` made of it

A folder has one plan. It may grow, by seeds and by arms; anything else is another study, and refused.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from senet.study.plan.arms import Study, StudyArm, find_entry
from senet.study.plan.merge_plans import RECIPE, STUDY, adopt_names, check_folder, join_plans
from senet.study.plan.se_keys import SE_OPTIONS, about_se, has_se, without_se
from senet.utils.input_files import file_content, parse_json, reading
from senet.utils.isolation import python_module
from senet.utils.limits import MOST_RUNS, check_at_most
from senet.utils.renamed import current_recipe, current_settings

__all__ = ["RECIPE", "STUDY", "Plan", "PlannedRun", "make_plan"]


@dataclass(frozen=True)
class PlannedRun:
    """A run of a plan: an arm with a seed, and the output folder of its `senet train`."""

    arm: StudyArm
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """What to call it in a line."""
        return f"{self.arm.name} seed {self.seed}"

    @property
    def log(self) -> Path:
        """What its command prints."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def status_file(self) -> Path:
        """Exit status of its latest command, written by the study that ran it."""
        return self.folder.with_name(f".{self.folder.name}.status")


@dataclass(frozen=True)
class Plan:
    """What a study is to run.

    Attributes:
        study: the arms.
        data, val_data, val_fraction, skip_bad: as of `senet.train`.
        recipe: name or file, as it was given.
        settings: of the recipe, for every arm.
        seeds: each arm has a run with each.
        folder: of the study.
        values: of the recipe with the settings, all in force, but for the seed; taken from these unless given.
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
            from senet.recipes import load_recipe

            object.__setattr__(self, "values", _values(asdict(load_recipe(self.recipe, self.settings))))

    @property
    def runs(self) -> tuple[PlannedRun, ...]:
        """Every run: all arms with the first seed, then all with the next, so that pairs are there early."""
        return tuple(
            PlannedRun(arm, seed, self.folder / "runs" / arm.name / f"seed-{seed}")
            for seed in self.seeds
            for arm in self.study.arms
        )

    def settings_of(self, run: PlannedRun) -> tuple[str, ...]:
        """What is set on top of the folder's recipe: the seed, what the recipe says of SE where there is SE, the arm's.

        An arm without SE goes without what concerns SE alone, and one with settings of its own goes by these.
        """
        shared: list[str] = []
        if has_se(run.arm.network):
            own = {_key(setting) for setting in run.arm.settings}
            said = about_se(self.values)
            shared = [f"{key}={json.dumps(value)}" for key, value in said.items() if key not in own]
        return (f"seed={run.seed}", *shared, *run.arm.settings)

    def recipe_of(self, run: PlannedRun) -> Any:
        """The recipe of a run, a `senet.recipes.Recipe`.

        Raises:
            ValueError: the arm's settings cannot be.
        """
        from senet.recipes.recipe import build_recipe
        from senet.recipes.toml import apply_settings

        return build_recipe(apply_settings(self._shared, self.settings_of(run)))

    def command(self, run: PlannedRun) -> list[str]:
        """`senet train` for a run, as a list of arguments; it starts the run, or goes on with it."""
        command = python_module("senet", ["train", run.arm.network, "--data", self.data])
        if self.val_data is not None:
            command += ["--val-data", self.val_data]
        if self.val_fraction is not None:
            command += ["--val-fraction", str(self.val_fraction)]
        command += ["--recipe", str(self.folder / RECIPE)]
        for setting in self.settings_of(run):
            command += ["--set", setting]
        return [*command, *(["--skip-bad"] if self.skip_bad else []), "--output", str(run.folder), "--resume"]

    def joined(self) -> "Plan":
        """The plan in force in its folder: this one, and what is there already.

        Raises:
            ValueError: see `save`.
        """
        check_folder(self.folder)
        return join_plans(Plan.load(self.folder), self) if (self.folder / STUDY).exists() else self

    def save(self) -> "Plan":
        """Make the folder, and keep the plan there; it is joined with the one that is there, which it may add to.

        Returns:
            The plan in force: all arms and seeds that the folder's runs are to have.

        Raises:
            ValueError: the folder is of another study, the message says what differs, or holds something else.
            OSError: it cannot be written to.
        """
        from senet.recipes.recipe import build_recipe
        from senet.recipes.toml import write_recipe
        from senet.utils.files import write_json

        self.joined()  # before anything is made
        with _locked(self.folder):
            joined = self.joined()
            heading = {"study": self.study.name, "base": self.recipe}
            write_recipe(build_recipe(self._shared), self.folder / RECIPE, **heading)
            write_json(self.folder / STUDY, joined._as_json())
        return joined

    @classmethod
    def load(cls, folder: Path) -> "Plan":
        """The plan that a folder keeps.

        Raises:
            ValueError: it keeps none, or one that is broken.
        """
        folder = Path(folder)
        path = folder / STUDY
        if not path.is_file():
            raise ValueError(f"{folder} is no study: it has no {STUDY}; give the output folder of senet study")
        remedy = "put a copy in its place, or remove it"
        with reading(path, message="{name} is broken: {reason}", remedy=remedy):
            found: dict[str, Any] = parse_json(file_content(path))
            about: dict[str, Any] = found.pop("study")
            arms = tuple(_arm(one) for one in about.pop("arms"))
            about |= {key: tuple(about[key]) for key in ("needs", "notes")}
            found |= {"settings": tuple(current_settings(found["settings"])), "seeds": tuple(found["seeds"])}
            if not found["values"]:  # a plan without would take those of the recipe as it is now
                raise ValueError("it has no values of the recipe")
            found["values"] = current_recipe(found["values"])
            plan = cls(**found, study=Study(**about, arms=arms), folder=folder)
            _check_kinds(plan)
            for run in plan.runs[: len(arms)]:
                plan.recipe_of(run)
            return plan

    @property
    def _shared(self) -> dict[str, Any]:
        """The recipe without what concerns SE alone, which not every arm takes."""
        return without_se(self.values)

    def _as_json(self) -> dict[str, Any]:
        whole = {key: value for key, value in vars(self).items() if key not in ("folder", "study")}
        arms = [
            {**vars(arm), "entry": None if arm.entry is None else [arm.entry.table, arm.entry.label]}
            for arm in self.study.arms
        ]
        return {"study": {**vars(self.study), "arms": arms}, **whole}


def make_plan(
    study: Study,
    *,
    data: str,
    recipe: str,
    seeds: int,
    folder: Path,
    val_data: str | None = None,
    val_fraction: float | None = None,
    settings: tuple[str, ...] = (),
    skip_bad: bool = False,
) -> Plan:
    """A plan with seeds 0 to `seeds` - 1, all of whose arms can be built, called as in its folder where they are there.

    Raises:
        ValueError: no seeds, a seed among the settings, a key that the study needs is missing, a recipe that cannot be,
            or an arm whose network cannot be; nothing is written.
        TypeError: an arm with an unknown option.
    """
    if seeds < 1:
        raise ValueError(f"seeds must be 1 or more, got {seeds}; 3 or more tell what is noise")
    arms, settings = len(study.arms), tuple(current_settings(settings))
    check_at_most(
        "seeds", seeds, MOST_RUNS // arms, f"a study has at most {MOST_RUNS:,} runs, and this one {arms} arms"
    )
    if any(_key(setting) == "seed" for setting in settings):
        raise ValueError("a study sets the seeds of its runs itself: give --seeds N instead of --set seed=")
    numbers = tuple(range(seeds))
    plan = Plan(study, data, val_data, val_fraction, recipe, settings, numbers, Path(folder), skip_bad)
    for key in study.needs:
        if key.removeprefix("network.") not in plan.values["network"]:
            raise ValueError(f"the study {study.name!r} needs {key}: give --set {key}=...")
    _check_varied(plan)
    for run in plan.runs[: len(study.arms)]:
        _check_buildable(plan, run)
    return adopt_names(Plan.load(plan.folder), plan) if (plan.folder / STUDY).exists() else plan


def _check_varied(plan: Plan) -> None:
    """What a study varies, the recipe must leave alone: an arm without a setting of its own has the default."""
    varied = {_key(setting) for arm in plan.study.arms for setting in arm.settings}
    for setting in plan.settings:
        if _key(setting) in varied:
            raise ValueError(f"the study {plan.study.name!r} varies that itself: leave out --set {setting}")
    own = [{_key(setting) for setting in arm.settings} for arm in plan.study.arms if has_se(arm.network)]
    for key in plan.values["network"]:
        name = f"network.{key}"
        if key in SE_OPTIONS and any(name in keys for keys in own) and not all(name in keys for keys in own):
            raise ValueError(f"the study {plan.study.name!r} varies {name} itself: leave it out of the recipe")


def _key(setting: str) -> str:
    return setting.partition("=")[0].strip()


def _check_buildable(plan: Plan, run: PlannedRun) -> None:
    """Build an arm's network without values, and without reading weights."""
    from senet.study.plan.estimates import build_empty

    try:
        build_empty(run.arm.network, plan.recipe_of(run))
    except (ValueError, TypeError) as error:
        raise type(error)(f"the arm {run.arm.name!r} cannot be built: {error}") from error


def _values(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has them, and without the seed."""
    return {key: value for key, value in json.loads(json.dumps(values, default=str)).items() if key != "seed"}


def _check_kinds(plan: Plan) -> None:
    """Whether a plan that was read has names that are text and seeds that are numbers.

    Raises:
        ValueError: one is something else.
    """
    study = plan.study
    texts = [plan.data, plan.recipe, study.name, study.title, study.table, study.baseline, *plan.settings]
    for arm in study.arms:
        texts += [arm.name, arm.label, arm.network, arm.against, *arm.settings]
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{text!r} stands where text is to be")
    for seed in plan.seeds:
        if type(seed) is not int:
            raise ValueError(f"{seed!r} stands where a seed is to be")
    if not study.arms:
        raise ValueError("it has no arms")


def _arm(found: dict[str, Any]) -> StudyArm:
    entry = found.pop("entry")
    settings = tuple(current_settings(found.pop("settings")))
    return StudyArm(settings=settings, entry=None if entry is None else find_entry(*entry), **found)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time writes the plan; the folder is made if need be."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock", thread_local=False):
        yield
