"""Make the plan of a study, and check that all of its arms can be built before anything is run."""

from pathlib import Path

from senet.recipes.network import create_network
from senet.study.plan.merge_plans import adopt_arm_names
from senet.study.plan.plan import STUDY, Plan, PlannedRun, key_of
from senet.study.plan.plan_file import load_plan
from senet.study.plan.se_keys import SE_OPTIONS, has_se
from senet.study.plan.study import Study
from senet.tasks import get_task
from senet.utils.limits import MOST_RUNS, check_at_most
from senet.utils.renamed import current_settings

__all__ = ["make_plan"]


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
    """Return a plan with the seeds 0 to `seeds` - 1; nothing is written.

    Arms that the folder's plan has too keep their names there.

    Args:
        study: the arms.
        data, val_data, val_fraction, skip_bad: see `senet.train`.
        recipe: name or path of a recipe.
        seeds: number of seeds, each with a run of every arm.
        folder: the study's folder, which may exist.
        settings: settings of the recipe, for every arm.

    Raises:
        ValueError: no seeds or too many, a setting of the seed or of what the study varies, a missing key that the
            study needs, an invalid recipe, or an arm whose network cannot be built.
        TypeError: an arm has an unknown option.
    """
    if seeds < 1:
        raise ValueError(f"seeds must be 1 or more, got {seeds}; noise can be estimated with 3 or more")
    arms, settings = len(study.arms), tuple(current_settings(settings))
    check_at_most(
        "seeds", seeds, MOST_RUNS // arms, f"a study has at most {MOST_RUNS:,} runs, and this one {arms} arms"
    )
    if any(key_of(setting) == "seed" for setting in settings):
        raise ValueError("a study sets the seeds of its runs itself: give --seeds N instead of --set seed=")
    plan = Plan(
        study=study,
        data=data,
        val_data=val_data,
        val_fraction=val_fraction,
        recipe=recipe,
        settings=settings,
        seeds=tuple(range(seeds)),
        folder=Path(folder),
        skip_bad=skip_bad,
    )
    for key in study.needs:
        if key.removeprefix("network.") not in plan.values["network"]:
            raise ValueError(f"the study {study.name!r} needs {key}: give --set {key}=...")
    _check_varied(plan)
    for run in plan.runs[: len(study.arms)]:
        _check_buildable(plan, run)
    return adopt_arm_names(load_plan(plan.folder), plan) if (plan.folder / STUDY).exists() else plan


def _check_varied(plan: Plan) -> None:
    """Check that the recipe does not set what the study varies: an arm without a setting has the default.

    Raises:
        ValueError: it does.
    """
    varied = {key_of(setting) for arm in plan.study.arms for setting in arm.settings}
    for setting in plan.settings:
        if key_of(setting) in varied:
            raise ValueError(f"the study {plan.study.name!r} varies that itself: leave out --set {setting}")
    own = [{key_of(setting) for setting in arm.settings} for arm in plan.study.arms if has_se(arm.network)]
    for key in plan.values["network"]:
        name = f"network.{key}"
        if key in SE_OPTIONS and any(name in keys for keys in own) and not all(name in keys for keys in own):
            raise ValueError(f"the study {plan.study.name!r} varies {name} itself: leave it out of the recipe")


def _check_buildable(plan: Plan, run: PlannedRun) -> None:
    """Build an arm's network on the meta device, without reading weights; the task must have networks of its kind."""
    try:
        recipe = plan.recipe_of(run)
        get_task(recipe.task).check_network(run.arm.network)
        create_network(run.arm.network, recipe, meta=True)
    except (ValueError, TypeError) as error:
        raise type(error)(f"the arm {run.arm.name!r} cannot be built: {error}") from error
