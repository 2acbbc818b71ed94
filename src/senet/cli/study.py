"""`senet study`: a grid of training runs with seeds, and what they come to."""

from contextlib import ExitStack, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from senet.cli.common.console import JsonOption, note, print_json, progress, refuse, stdout, table
from senet.cli.common.outputs import check_folder_option
from senet.cli.common.study_live import StudyLive, duration

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
            "networks (4 and 5), start; a file with a grid; or report.",
        ),
    ],
    folder: Annotated[str | None, typer.Argument(metavar="DIR", help="Of `senet study report DIR`.")] = None,
    data: Annotated[str | None, typer.Option(metavar="SPEC", help="As of senet train.")] = None,
    recipe: Annotated[str | None, typer.Option(metavar="NAME|FILE", help="As of senet train.")] = None,
    network: Annotated[
        str | None,
        typer.Option("--network", "--model", metavar="NAME", help="Such as resnet20, which means se_resnet20 as well."),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Runs of each arm, with the seeds 0 to N-1.")] = _SEEDS,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="The study's folder, new or its own.")
    ] = None,
    val_data: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Validation data, where --data has no split of its own.")
    ] = None,
    val_fraction: Annotated[
        float | None, typer.Option(help="Keep this share of each training class for validation instead.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the recipe, in every arm. Repeatable."),
    ] = None,
    arms: Annotated[
        str | None, typer.Option(metavar="ARM,...", help="Only these arms; the others can be run later.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Runs at a time; they share the cores. 1 unless given.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="auto|ADDRESS|local", help="Put the runs on a Ray cluster, or one of this machine alone."),
    ] = None,
    cpus: Annotated[int, typer.Option(metavar="N", help="With --ray: CPUs and threads of a run.")] = 1,
    gpus: Annotated[float, typer.Option(metavar="N", help="With --ray: GPUs of a run, or a fraction.")] = 0.0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out images that cannot be read.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs with parameters, multiply-adds and time; run nothing.")
    ] = False,
    baseline: Annotated[
        str | None, typer.Option(metavar="ARM", help="With report: what the other arms are compared to.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run a study: each arm with each seed by `senet train`, into a folder that can be gone on with.

    The same command does what is missing: after Ctrl-C, after a failure, or beside another one like it. More seeds and
    more arms may be added. One seed has the same initial weights and order of images in every arm. `senet study report
    DIR` compares the arms.

    A file has a table [grid] in which every value of one key meets every value of the others:
    network = ["se_resnet20"], reduction = [4, 16], lr = [0.1, 0.05]; keys are network, options of `senet insert`, and
    keys of a recipe.
    """
    if name == "report":
        from senet.cli.study_report import report

        of_runs = {
            "--data": data,
            "--recipe": recipe,
            "--network": network,
            "--seeds": seeds != _SEEDS,
            "--output": output,
            "--val-data": val_data,
            "--val-fraction": val_fraction,
            "--set": set_,
            "--arms": arms,
            "--jobs": jobs,
            "--ray": ray,
            "--skip-bad": skip_bad,
            "--dry-run": dry_run,
        }
        refuse(of_runs, "is for running a study, and `senet study report DIR` runs nothing")
        report(_needed(folder, "DIR, the study's folder,"), baseline=baseline, json=json)
        return
    if folder is not None:
        raise ValueError(f"the study's folder is given by --output DIR; got {folder!r} beside {name!r}")
    if baseline is not None:
        raise ValueError("--baseline is an option of `senet study report DIR`")
    if ray is None and (cpus != 1 or gpus):
        raise ValueError("--cpus and --gpus are of the runs of --ray; --jobs N shares this machine's out by itself")
    check_folder_option("--output", output, inputs=(data,))
    from senet.study.plan.make_plan import make_plan
    from senet.study.plan.named_studies import open_study

    spec = _needed(data, "--data SPEC")
    found = open_study(name, network, data=spec)
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
        settings=tuple(set_ or []),
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
        raise ValueError(f"{what} is missing; `senet study --help` shows what it is")
    return value


def _run(plan: "Plan", jobs: int | None, ray: str | None, cpus: int, gpus: float, json: bool) -> None:
    from senet.data import open_splits
    from senet.study.plan.plan_file import save_plan
    from senet.study.running.local import LocalExecutor, cuda_devices
    from senet.study.running.run import run_plan

    open_splits(plan.data, plan.val_data, plan.val_fraction)  # says what is wrong with them, once for all runs
    for weights in sorted({str(plan.recipe_of(run).network.get("weights") or "") for run in plan.runs} - {""}):
        if ":" not in weights and not Path(weights).is_file():
            raise ValueError(f"network.weights={weights!r}: there is no such file, and no run could start")
    with ExitStack() as stack:
        executor: Any
        if ray is None:
            devices = [] if plan.values["device"] == "cpu" else cuda_devices()
            executor = LocalExecutor(1 if jobs is None else jobs, devices)
        else:
            from senet.study.running.ray_cluster import RayExecutor

            # Ray tells of workers that died there, where the answer alone is to be; a run's log has what it said.
            stack.enter_context(redirect_stdout(StringIO()))
            executor = RayExecutor(ray, cpus=cpus, gpus=gpus, jobs=jobs)
            stack.callback(executor.close)
        save_plan(plan)
        with StudyLive() as reporter:
            states, number = run_plan(plan, executor, reporter)
    if number is None or json:
        _show(plan, states, json)
    failed = [state.run.name for state in states if state.status == "failed"]
    done = sum(state.status == "done" for state in states)
    if failed:
        some = ", ".join(failed[:3]) + (", ..." if len(failed) > 3 else "")
        note(f"{len(failed)} of {len(states)} runs failed: {some}; the same command tries them again", style="bold red")
    if number is not None:
        note(f"interrupted with {done} of {len(states)} runs done; the same command goes on from there", style="yellow")
        raise typer.Exit(128 + number)
    if failed:
        raise typer.Exit(1)


def _show(plan: "Plan", states: "list[RunState]", json: bool) -> None:
    """What the runs came to, without statistics."""
    if json:
        print_json({"output": str(plan.folder), "runs": [_describe(state) for state in states]})
        return
    rows = []
    for arm in plan.study.arms:
        own = [state for state in states if state.run.arm == arm]
        errors = [state.error for state in own if state.status == "done" and state.error is not None]
        mean = f"{sum(errors) / len(errors):.2f}" if errors else "-"
        rows.append((arm.name, arm.label, f"{len(errors)} of {len(own)}", mean))
    table("", ("arm", "", "runs", "last epoch, error %"), rows, text=2)
    stdout.print(f"\nintervals and differences: senet study report {plan.folder}", soft_wrap=True)


def _describe(state: "RunState") -> dict[str, Any]:
    return {
        "arm": state.run.arm.name,
        "seed": state.run.seed,
        "status": state.status,
        "epochs": state.epoch,
        "top1_error": state.error,
        "seconds": state.seconds,
        "folder": str(state.run.folder),
        "log": str(state.run.log),
        "reason": state.reason,
    }


def _show_plan(plan: "Plan", jobs: int, cpus: int | None, json: bool) -> None:
    from senet.runs import RunFolder
    from senet.study.plan.estimates import estimate_arms
    from senet.study.plan.plan_file import merge_saved
    from senet.study.running.local import threads_each
    from senet.study.running.run_folder import is_done
    from senet.utils.limits import MOST_PROCESSES, check_at_most

    merge_saved(plan)
    if jobs < 1:
        raise ValueError(f"jobs must be 1 or more, got {jobs}")
    check_at_most("jobs", jobs, MOST_PROCESSES)
    threads = threads_each(jobs) if cpus is None else cpus
    arms = len(plan.study.arms)
    estimates = estimate_arms(plan, threads=threads)
    found = {one.arm.name: one for one in (next(estimates) for _ in progress(range(arms), arms, "time steps"))}
    rows, whole = [], 0.0
    for run in plan.runs:
        one, epochs = found[run.arm.name], plan.recipe_of(run).epochs
        epoch = epochs if is_done(plan, run) else min(RunFolder(run.folder).completed()[0], epochs - 1)
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
    stdout.print(
        f"\nabout {duration(whole / jobs)} for what is left, {jobs} at a time: by the median of up to 5 steps of each "
        f"arm, with this recipe's batch on these data and {threads} threads, and one batch of evaluation, here and "
        f"now; without the start of each process, and what runs at a time take from each other",
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
