"""`senet study`: train a grid of runs with seeds, and compare them."""

from contextlib import ExitStack, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from senet.cli.common.completion import complete_network, complete_recipe
from senet.cli.common.console import JsonOption, note, print_json, progress, refuse, stdout, table
from senet.cli.common.outputs import check_folder_option
from senet.cli.common.study_live import StudyLive, duration
from senet.utils.choices import TaskName

if TYPE_CHECKING:
    from senet.study.plan.plan import Plan
    from senet.study.running.run import RunState

__all__ = ["study"]

_SEEDS = 3


def study(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE.toml|report",
            help="reduction, squeeze, gate, stages, placement, conv3x3, nosqueeze (the paper's Tables 10 to 16), "
            "networks (4 and 5), init (SE in a pretrained network); a file with a grid; or report.",
        ),
    ],
    folder: Annotated[str | None, typer.Argument(metavar="DIR", help="With report: the study's folder.")] = None,
    data: Annotated[str | None, typer.Option(metavar="SPEC", help="Data, see senet train.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Recipe, see senet train.", autocompletion=complete_recipe),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            "--model",
            metavar="NAME",
            help="Network, plain or with SE: resnet20 and se_resnet20 mean the same.",
            autocompletion=complete_network,
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="Number of seeds: each arm is run with the seeds 0 to N-1.")
    ] = _SEEDS,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="The study's folder, new or existing.")
    ] = None,
    task: Annotated[
        TaskName | None, typer.Option(help="What the networks are trained for, instead of the recipe's task.")
    ] = None,
    val_data: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Validation data, if --data has no validation split.")
    ] = None,
    val_fraction: Annotated[
        float | None, typer.Option(help="Use this fraction of each training class for validation.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a value of the recipe in every arm. Repeatable."),
    ] = None,
    arms: Annotated[
        str | None, typer.Option(metavar="ARM,...", help="Run only these arms; the others can be run later.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Simultaneous runs, which share the cores. 1 unless given.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="auto|ADDRESS|local", help="Run on a Ray cluster, or on one of this machine alone."),
    ] = None,
    cpus: Annotated[int, typer.Option(metavar="N", help="With --ray: CPUs and threads for each run.")] = 1,
    gpus: Annotated[float, typer.Option(metavar="N", help="With --ray: GPUs for each run, or a fraction.")] = 0.0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip unreadable images.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List the runs with parameters, multiply-adds and time, without running them."),
    ] = False,
    baseline: Annotated[
        str | None, typer.Option(metavar="ARM", help="With report: the arm that the others are compared to.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run a study: train each arm with each seed by `senet train`. `senet study report DIR` compares the arms.

    The same command runs what is missing: after Ctrl-C, after a failure, or in parallel with another one. It may add
    seeds and arms. A seed gives every arm the same initial weights and the same order of images.

    A study file has a table [grid], in which every value of one key is combined with every value of the others:
    network = ["se_resnet20"], reduction = [4, 16], lr = [0.1, 0.05]. Keys are network, options of `senet insert`, and
    keys of a recipe.
    """
    if name == "report":
        from senet.cli.study_report import report

        run_options = {
            "--data": data,
            "--recipe": recipe,
            "--network": network,
            "--seeds": seeds != _SEEDS,
            "--output": output,
            "--val-data": val_data,
            "--val-fraction": val_fraction,
            "--set": set_,
            "--task": task,
            "--arms": arms,
            "--jobs": jobs,
            "--ray": ray,
            "--skip-bad": skip_bad,
            "--dry-run": dry_run,
        }
        refuse(run_options, "is an option for running a study; `senet study report DIR` runs nothing")
        report(_needed(folder, "DIR, the study's folder,"), baseline=baseline, json=json)
        return
    if folder is not None:
        raise ValueError(f"unexpected argument {folder!r}: give the study's folder as --output DIR")
    if baseline is not None:
        raise ValueError("--baseline is an option of `senet study report DIR`")
    if ray is None and (cpus != 1 or gpus):
        raise ValueError("--cpus and --gpus require --ray; without it, --jobs N divides this machine's cores and GPUs")
    check_folder_option("--output", output, inputs=(data,))
    from senet.study.plan.make_plan import make_plan
    from senet.study.plan.named_studies import open_study

    found = open_study(name, network, data=data or "")  # first: a name without a study has no data
    spec = _needed(data, "--data SPEC")
    if arms is not None:
        found = found.only(arm.strip() for arm in arms.split(","))
    plan = make_plan(
        found,
        data=spec,
        recipe=_needed(recipe, "--recipe NAME"),
        seeds=seeds,
        folder=Path(_needed(output, "--output DIR")).absolute(),
        val_data=val_data,
        val_fraction=val_fraction,
        settings=(*([] if task is None else [f"task={task}"]), *(set_ or [])),
        skip_bad=skip_bad,
    )
    for text in found.notes:
        note(text, style="yellow")
    if dry_run:
        _show_plan(plan, 1 if jobs is None else jobs, cpus if ray else None, json)
    else:
        _run(plan, jobs, ray, cpus, gpus, json)


def _needed(value: str | None, what: str) -> str:
    if value is None:
        raise ValueError(f"{what} is missing; see `senet study --help`")
    return value


def _run(plan: "Plan", jobs: int | None, ray: str | None, cpus: int, gpus: float, json: bool) -> None:
    from senet.data import check_faults, open_splits
    from senet.study.plan.plan_file import save_plan
    from senet.study.running.local import LocalExecutor, cuda_devices
    from senet.study.running.run import run_plan
    from senet.tasks import get_task

    recipes = [plan.recipe_of(run) for run in plan.runs[: len(plan.study.arms)]]
    # Reports invalid data once for all runs.
    training, validation = open_splits(plan.data, plan.val_data, plan.val_fraction)
    for images in (training, validation):
        check_faults(images.faults, images.spec, plan.skip_bad)
    for task in dict.fromkeys(get_task(recipe.task) for recipe in recipes):
        task.data(training)
        task.check_validation(task.data(validation))
    for key in ("weights", "backbone_weights"):
        for weights in sorted({str(recipe.network.get(key) or "") for recipe in recipes} - {""}):
            if ":" not in weights and not Path(weights).is_file():
                raise ValueError(f"network.{key}={weights!r}: there is no such file")
    with ExitStack() as stack:
        executor: Any
        if ray is None:
            devices = [] if plan.values["device"] == "cpu" else cuda_devices()
            executor = LocalExecutor(1 if jobs is None else jobs, devices)
        else:
            from senet.study.running.ray_cluster import RayExecutor

            # Ray prints worker failures to standard output, which is for results; the run's log has them too.
            stack.enter_context(redirect_stdout(StringIO()))
            executor = RayExecutor(ray, cpus=cpus, gpus=gpus, jobs=jobs)
            stack.callback(executor.close)
        save_plan(plan)
        with StudyLive() as reporter:
            states, signum = run_plan(plan, executor, reporter)
    if signum is None or json:
        _show(plan, states, json)
    failed = [state.run.name for state in states if state.status == "failed"]
    done = sum(state.status == "done" for state in states)
    if failed:
        some = ", ".join(failed[:3]) + (", ..." if len(failed) > 3 else "")
        note(
            f"{len(failed)} of {len(states)} runs failed: {some}; run the same command to retry them", style="bold red"
        )
    if signum is not None:
        note(f"interrupted: {done} of {len(states)} runs done; run the same command to resume", style="yellow")
        raise typer.Exit(128 + signum)
    if failed:
        raise typer.Exit(1)


def _show(plan: "Plan", states: "list[RunState]", json: bool) -> None:
    """Print the results of the runs, without statistics."""
    if json:
        print_json({"output": str(plan.folder), "runs": [_describe(state) for state in states]})
        return
    rows, metric = [], states[0].task.decisive
    for arm in plan.study.arms:
        own = [state for state in states if state.run.arm == arm]
        values = [state.value for state in own if state.status == "done" and state.value is not None]
        mean = metric.number(sum(values) / len(values)) if values else "-"
        rows.append((arm.name, arm.label, f"{len(values)} of {len(own)}", mean))
    head = f"{metric.noun} after the last epoch" + (f", {metric.unit}" if metric.unit else "")
    table("", ("arm", "", "runs", head), rows, text=2)
    stdout.print(f"\nintervals and differences: senet study report {plan.folder}", soft_wrap=True)


def _describe(state: "RunState") -> dict[str, Any]:
    return {
        "arm": state.run.arm.name,
        "seed": state.run.seed,
        "status": state.status,
        "epochs": state.epoch,
        state.task.decisive.key: state.value,
        "seconds": state.seconds,
        "folder": str(state.run.folder),
        "log": str(state.run.log),
        "reason": state.reason,
    }


def _show_plan(plan: "Plan", jobs: int, cpus: int | None, json: bool) -> None:
    from senet.runs import RunFolder
    from senet.study.plan.estimates import estimate_arms
    from senet.study.plan.plan_file import merge_saved
    from senet.study.running.local import threads_per_job
    from senet.study.running.run_status import is_done
    from senet.tasks import get_task
    from senet.utils.limits import MOST_PROCESSES, check_at_most

    merge_saved(plan)
    if jobs < 1:
        raise ValueError(f"jobs must be 1 or more, got {jobs}")
    check_at_most("jobs", jobs, MOST_PROCESSES)
    threads = threads_per_job(jobs) if cpus is None else cpus
    arms = len(plan.study.arms)
    estimates = estimate_arms(plan, threads=threads)
    found = {one.arm.name: one for one in (next(estimates) for _ in progress(range(arms), arms, "time steps"))}
    rows, whole = [], 0.0
    for run in plan.runs:
        one, recipe = found[run.arm.name], plan.recipe_of(run)
        epochs, task = one.epochs, get_task(recipe.task)
        epoch = epochs if is_done(plan, run) else min(RunFolder(run.folder).completed(task)[0], epochs - 1)
        left = (one.seconds or 0.0) * (1 - epoch / epochs)
        whole += left
        rows.append((run, one, epoch, epochs, left))
    if json:
        runs = [_describe_plan(*row) for row in rows]
        print_json({"runs": runs, "seconds": whole / jobs, "jobs": jobs, "threads": threads})
        return
    columns = ("arm", "network", "settings", "seed", "parameters", "MACs", "step", "run", "epochs done")
    cells = [
        (
            run.arm.name,
            run.arm.network,
            " ".join(run.arm.settings),
            run.seed,
            one.params,
            one.macs,
            f"{1000 * (one.step or 0):.0f} ms",
            duration(one.seconds or 0),
            f"{epoch}/{epochs}",
        )
        for run, one, epoch, epochs, _ in rows
    ]
    table(f"{plan.study.name}: {plan.study.title}", columns, cells, text=3)
    threads_of = "1 thread" if threads == 1 else f"{threads} threads"
    stdout.print(
        f"\nabout {duration(whole / jobs)} for the remaining epochs, {jobs} at a time: estimated from the median of up "
        f"to 5 steps of each arm and one batch of evaluation, with {threads_of} on this machine; without starting "
        f"the processes, and without contention between simultaneous runs",
        soft_wrap=True,
    )


def _describe_plan(run: Any, one: Any, epoch: int, epochs: int, left: float) -> dict[str, Any]:
    return {
        "arm": run.arm.name,
        "seed": run.seed,
        "network": run.arm.network,
        "settings": list(run.arm.settings),
        "parameters": one.params,
        "macs": one.macs,
        "step_seconds": one.step,
        "run_seconds": one.seconds,
        "epochs_done": epoch,
        "epochs": epochs,
        "seconds_left": left,
    }
