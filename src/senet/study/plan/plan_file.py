"""Read and write a study's plan: study.json and recipe.toml in the study's folder.

A folder has one plan. It may grow by seeds and by arms; anything else is another study, and refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from senet.recipes.recipe import build_recipe
from senet.recipes.toml import write_recipe
from senet.study.plan.merge_plans import merge_plans
from senet.study.plan.named_studies import OLD_NAMES
from senet.study.plan.plan import RECIPE, STUDY, Plan
from senet.study.plan.study import Study, StudyArm, find_entry
from senet.utils.files import write_json
from senet.utils.input_files import file_content, parse_json, reading
from senet.utils.renamed import current_recipe, current_settings

__all__ = ["load_plan", "merge_saved", "save_plan"]

# What a folder may hold before it is a study.
_OWN_FILES = ("runs", STUDY, RECIPE)


def load_plan(folder: Path) -> Plan:
    """Read the plan of a study's folder.

    Raises:
        ValueError: the folder has no plan, or a broken one.
    """
    folder = Path(folder)
    path = folder / STUDY
    if not path.is_file():
        raise ValueError(f"{folder} is not a study: it has no {STUDY}; give the output folder of senet study")
    remedy = "put a copy in its place, or remove it"
    with reading(path, message="{name} is broken: {reason}", remedy=remedy):
        found: dict[str, Any] = parse_json(file_content(path))
        study: dict[str, Any] = found.pop("study")
        study["name"] = OLD_NAMES.get(study["name"], study["name"])
        arms = tuple(_read_arm(arm) for arm in study.pop("arms"))
        study |= {key: tuple(study[key]) for key in ("needs", "notes")}
        found |= {"settings": tuple(current_settings(found["settings"])), "seeds": tuple(found["seeds"])}
        if not found["values"]:  # else the plan would read the recipe as it is now
            raise ValueError("it has no values of the recipe")
        found["values"] = current_recipe(found["values"])
        plan = Plan(**found, study=Study(**study, arms=arms), folder=folder)
        _check_types(plan)
        for run in plan.runs[: len(arms)]:
            plan.recipe_of(run)
        return plan


def merge_saved(plan: Plan) -> Plan:
    """Return a plan merged with the one that its folder has; the plan itself if there is none.

    Raises:
        ValueError: see `save_plan`.
    """
    _check_folder(plan.folder)
    return merge_plans(load_plan(plan.folder), plan) if (plan.folder / STUDY).exists() else plan


def save_plan(plan: Plan) -> Plan:
    """Make the folder, and write the plan there, merged with the one that the folder has.

    Returns:
        The merged plan: all arms and seeds of the study.

    Raises:
        ValueError: the folder has another study (the message lists the differences) or other files.
        OSError: the folder cannot be written to.
    """
    merge_saved(plan)  # fails before anything is written
    with _locked(plan.folder):
        merged = merge_saved(plan)
        heading = {"study": plan.study.name, "base": plan.recipe}
        write_recipe(build_recipe(plan.shared_values), plan.folder / RECIPE, **heading)
        write_json(plan.folder / STUDY, _as_json(merged))
    return merged


def _check_folder(folder: Path) -> None:
    """Check that a folder may hold a study: it is one, or holds at most runs.

    Raises:
        ValueError: it holds other files, or is a file.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"the output {folder} is in use: it is a file; choose another name, or remove it")
    if (folder / STUDY).exists():
        return
    other = sorted(
        path.name for path in folder.iterdir() if path.name not in _OWN_FILES and not path.name.startswith(".")
    )
    if other:
        raise ValueError(
            f"the output {folder} is in use: it holds {other[0]!r}, and no {STUDY}; choose another folder, or remove it"
        )


def _check_types(plan: Plan) -> None:
    """Check that the names of a plan are text and its seeds whole numbers.

    Raises:
        ValueError: a value has another type, or there are no arms.
    """
    study = plan.study
    texts = [plan.data, plan.recipe, study.name, study.title, study.table, study.baseline, *plan.settings]
    for arm in study.arms:
        texts += [arm.name, arm.label, arm.network, arm.against, *arm.settings]
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"expected text, got {text!r}")
    for seed in plan.seeds:
        if type(seed) is not int:
            raise ValueError(f"expected a whole number as seed, got {seed!r}")
    if not study.arms:
        raise ValueError("it has no arms")


def _read_arm(found: dict[str, Any]) -> StudyArm:
    entry = found.pop("entry")
    settings = tuple(current_settings(found.pop("settings")))
    return StudyArm(settings=settings, entry=None if entry is None else find_entry(*entry), **found)


def _as_json(plan: Plan) -> dict[str, Any]:
    values = {key: value for key, value in vars(plan).items() if key not in ("folder", "study")}
    arms = [
        {**vars(arm), "entry": None if arm.entry is None else [arm.entry.table, arm.entry.label]}
        for arm in plan.study.arms
    ]
    return {"study": {**vars(plan.study), "arms": arms}, **values}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make a folder if needed, and let one process at a time write the plan there."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock", thread_local=False):
        yield
