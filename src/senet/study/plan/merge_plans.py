"""Whether a plan may be in a folder, and what it comes to together with the plan that is there."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from senet.study.plan.plan import Plan

__all__ = ["RECIPE", "STUDY", "adopt_names", "check_folder", "join_plans"]

STUDY = "study.json"
RECIPE = "recipe.toml"
# Of the study's own folder; whatever else is in one is somebody else's.
_OWN = ("runs", STUDY, RECIPE)


def check_folder(folder: Path) -> None:
    """Whether a study may be in a folder: it is one, or holds nothing but runs.

    Raises:
        ValueError: it may not.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"the output {folder} is in use: it is a file; choose another name, or remove it")
    if (folder / STUDY).exists():
        return
    other = sorted(path.name for path in folder.iterdir() if path.name not in _OWN and not path.name.startswith("."))
    if other:
        raise ValueError(
            f"the output {folder} is in use: it holds {other[0]!r}, and no {STUDY}; choose another folder, or remove it"
        )


def join_plans(before: "Plan", now: "Plan") -> "Plan":
    """The plan of both, where the second adds arms and seeds at most.

    Raises:
        ValueError: something else differs.
    """
    from senet.recipes.recipe import FREE

    differing = [
        f"{key} was {was!r} and is {wanted!r}"
        for key, (was, wanted) in _differences(before, now).items()
        if key not in FREE
    ]
    if differing:
        more = f"; and {len(differing) - 8} more" if len(differing) > 8 else ""
        raise ValueError(
            f"the folder {now.folder} is in use by another study: {'; '.join(differing[:8])}{more}. Take another "
            f"folder, or give what it was"
        )
    # In the order of whichever has more, so that what was left out before comes where it belongs.
    longer, shorter = sorted((now.study, before.study), key=lambda study: -len(study.arms))
    arms = {arm.name: arm for arm in (*longer.arms, *shorter.arms)} | {arm.name: arm for arm in now.study.arms}
    study = replace(now.study, arms=tuple(arms.values()))
    return replace(now, study=study, seeds=tuple(sorted({*before.seeds, *now.seeds})))


def adopt_names(before: "Plan", now: "Plan") -> "Plan":
    """The second plan, with those of its arms that the first has too called as they are there.

    A grid names its arms by what varies. One that grows by a key would give new names to arms whose runs are there, and
    train them again.
    """
    known = {traits: name for name, traits in _arm_traits(before).items()}
    names = {name: known.get(traits, name) for name, traits in _arm_traits(now).items()}
    arms = tuple(
        replace(arm, name=names[arm.name], against=names.get(arm.against, arm.against)) for arm in now.study.arms
    )
    baseline = names.get(now.study.baseline, now.study.baseline)
    return replace(now, study=replace(now.study, arms=arms, baseline=baseline))


def _arm_traits(plan: "Plan") -> dict[str, str]:
    """What tells each arm's runs from others', by its name: the network, and all of the recipe but the seed."""
    from senet.recipes.recipe import FREE

    found = {}
    for run in plan.runs[: len(plan.study.arms)]:
        recipe = {key: value for key, value in asdict(plan.recipe_of(run)).items() if key not in ("seed", *FREE)}
        found[run.arm.name] = json.dumps([run.arm.network, recipe], sort_keys=True, default=str)
    return found


def _differences(before: "Plan", now: "Plan") -> dict[str, tuple[Any, Any]]:
    def traits(plan: "Plan") -> dict[str, Any]:
        network = {f"network.{key}": value for key, value in plan.values["network"].items()}
        whole = {key: value for key, value in plan.values.items() if key != "network"} | network
        data = {key: getattr(plan, key) for key in ("data", "val_data", "val_fraction", "skip_bad")}
        arms = {f"arm {arm.name}": " ".join((arm.network, *arm.settings)) for arm in plan.study.arms}
        return {"study": plan.study.name, **data, **whole, **arms}

    one, two = traits(before), traits(now)
    keys = [key for key in dict.fromkeys((*one, *two)) if one.get(key) != two.get(key)]
    # An arm that one of them does not have is no difference: the plan may grow, and may be run in part. Nor is
    # a setting that says what the recipe has anyway.
    ours, theirs = _arm_traits(before), _arm_traits(now)
    same = {f"arm {name}" for name in ours.keys() & theirs.keys() if ours[name] == theirs[name]}
    return {
        key: (one.get(key), two.get(key))
        for key in keys
        if not (key.startswith("arm ") and (key not in one or key not in two or key in same))
    }
