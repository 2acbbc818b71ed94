"""Merge a plan with the plan that its folder has: seeds and arms may be added, anything else is another study."""

import json
from dataclasses import asdict, replace
from typing import Any

from senet.recipes.recipe import DEFAULTS, FREE
from senet.study.plan.plan import Plan

__all__ = ["adopt_arm_names", "merge_plans"]

# Differences that an error names.
_MOST_DIFFERENCES = 8


def merge_plans(saved: Plan, new: Plan) -> Plan:
    """Return a plan with the arms and seeds of both.

    Args:
        saved: the plan of the folder.
        new: the plan to add. It may add or omit arms and seeds.

    Raises:
        ValueError: anything else differs; the message lists the differences.
    """
    differing = [
        f"{key} was {was!r} and is {wanted!r}"
        for key, (was, wanted) in _differences(saved, new).items()
        if key not in FREE
    ]
    if differing:
        rest = len(differing) - _MOST_DIFFERENCES
        more = f"; and {rest} more" if rest > 0 else ""
        raise ValueError(
            f"the folder {new.folder} is in use by another study: {'; '.join(differing[:_MOST_DIFFERENCES])}{more}. "
            f"Choose another folder, or give the same values as before"
        )
    # The order of the plan with more arms, so that an arm that was omitted before gets its usual place.
    longer, shorter = sorted((new.study, saved.study), key=lambda study: -len(study.arms))
    arms = {arm.name: arm for arm in (*longer.arms, *shorter.arms)} | {arm.name: arm for arm in new.study.arms}
    study = replace(new.study, arms=tuple(arms.values()))
    return replace(new, study=study, seeds=tuple(sorted({*saved.seeds, *new.seeds})))


def adopt_arm_names(saved: Plan, new: Plan) -> Plan:
    """Return the new plan with each arm called as the same arm of the saved plan.

    A grid names its arms by what varies. When it grows by a key, its arms get longer names; under these, runs that
    exist would be trained again.
    """
    known = {identity: name for name, identity in _arm_identities(saved).items()}
    names = {name: known.get(identity, name) for name, identity in _arm_identities(new).items()}
    arms = tuple(
        replace(arm, name=names[arm.name], against=names.get(arm.against, arm.against)) for arm in new.study.arms
    )
    baseline = names.get(new.study.baseline, new.study.baseline)
    return replace(new, study=replace(new.study, arms=arms, baseline=baseline))


def _arm_identities(plan: Plan) -> dict[str, str]:
    """Return what identifies the runs of each arm: the network, and the recipe without the seed, as text."""
    found = {}
    for run in plan.runs[: len(plan.study.arms)]:
        recipe = {key: value for key, value in asdict(plan.recipe_of(run)).items() if key not in ("seed", *FREE)}
        found[run.arm.name] = json.dumps([run.arm.network, recipe], sort_keys=True, default=str)
    return found


def _differences(saved: Plan, new: Plan) -> dict[str, tuple[Any, Any]]:
    """Return the values that differ, saved and new, by key."""
    before, after = _traits(saved), _traits(new)
    keys = [key for key in dict.fromkeys((*before, *after)) if before.get(key) != after.get(key)]
    # An arm that only one plan has is no difference: a plan may grow, and be run in part. Neither is a setting that
    # repeats the recipe's value.
    old, now = _arm_identities(saved), _arm_identities(new)
    same = {f"arm {name}" for name in old.keys() & now.keys() if old[name] == now[name]}
    return {
        key: (before.get(key), after.get(key))
        for key in keys
        if not (key.startswith("arm ") and (key not in before or key not in after or key in same))
    }


def _traits(plan: Plan) -> dict[str, Any]:
    """Return everything that two plans of one study have in common, by key."""
    network = {f"network.{key}": value for key, value in plan.values["network"].items()}
    values = {key: value for key, value in (DEFAULTS | dict(plan.values)).items() if key != "network"} | network
    data = {key: getattr(plan, key) for key in ("data", "val_data", "val_fraction", "skip_bad")}
    arms = {f"arm {arm.name}": " ".join((arm.network, *arm.settings)) for arm in plan.study.arms}
    return {"study": plan.study.name, **data, **values, **arms}
