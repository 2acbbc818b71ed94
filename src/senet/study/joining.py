"""Whether a plan may be in a folder, and what it comes to together with the plan that is there."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from senet.study.plan import Plan

__all__ = ["RECIPE", "STUDY", "check_folder", "join_plans"]

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
    from senet.training.recipe import FREE

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
    names = {arm.name for arm in now.study.arms}
    # In the order of whichever has more, so that what was left out before comes where it belongs.
    longer, shorter = sorted((now.study, before.study), key=lambda study: -len(study.arms))
    there = {arm.name for arm in longer.arms}
    arms = (*longer.arms, *(arm for arm in shorter.arms if arm.name not in there))
    baseline = now.study.baseline if len(names) > len(before.study.arms) else before.study.baseline
    study = replace(now.study, arms=arms, baseline=baseline)
    return replace(now, study=study, seeds=tuple(sorted({*before.seeds, *now.seeds})))


def _differences(before: "Plan", now: "Plan") -> dict[str, tuple[Any, Any]]:
    def traits(plan: "Plan") -> dict[str, Any]:
        network = {f"network.{key}": value for key, value in plan.values["network"].items()}
        whole = {key: value for key, value in plan.values.items() if key != "network"} | network
        data = {key: getattr(plan, key) for key in ("data", "val_data", "val_fraction", "skip_bad")}
        arms = {f"arm {arm.name}": " ".join((arm.network, *arm.settings)) for arm in plan.study.arms}
        return {"study": plan.study.name, **data, **whole, **arms}

    one, two = traits(before), traits(now)
    keys = [key for key in dict.fromkeys((*one, *two)) if one.get(key) != two.get(key)]
    # An arm that one of them does not have is no difference: the plan may grow, and may be run in part.
    return {
        key: (one.get(key), two.get(key))
        for key in keys
        if not (key.startswith("arm ") and (key not in one or key not in two))
    }
