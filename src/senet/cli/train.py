"""`senet train`: train a network on a data set by a recipe."""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from senet.cli.common.completion import complete_network, complete_recipe
from senet.cli.common.console import JsonOption, note, print_json, progress, refuse, stdout, table
from senet.cli.common.live import Live
from senet.cli.common.networks import EntryOption, MissingOption, WeightsOption
from senet.cli.common.outputs import check_file_option, check_folder_option
from senet.utils.choices import LoggerName, TaskName, literal_values
from senet.utils.errors import DataWarning
from senet.utils.ranks import is_first

if TYPE_CHECKING:
    from collections.abc import Callable

    from senet.data import DataReport
    from senet.recipes import Recipe
    from senet.runs import Run

__all__ = ["train"]


@dataclass(frozen=True, kw_only=True)
class _Arguments:
    data: str
    network: str
    output: str
    recipe: "Recipe"


def train(
    network: Annotated[
        str | None,
        typer.Argument(
            metavar="NETWORK",
            help="The name of the network, see `senet models`; such as se_resnet20.",
            autocompletion=complete_network,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="The data set: digits; a folder with train/ and val/ of class folders; a .tar of class folders; "
            "csv:FILE; parquet:FILE; coco:DIR; torchvision:CIFAR10?root=DIR; hf:NAME; wds:DIR or "
            "wds:NAME-{000000..000127}.tar.",
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="The folder of the run; new or empty.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="The recipe, such as digits, cifar or imagenet; or a .toml file.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    task: Annotated[
        TaskName | None, typer.Option(help="What the network is trained for, instead of the recipe's task.")
    ] = None,
    val_data: Annotated[
        str | None, typer.Option(metavar="SPEC", help="The validation data, if --data has no validation split.")
    ] = None,
    weights: WeightsOption = None,
    missing: MissingOption = None,
    weights_entry: EntryOption = None,
    val_fraction: Annotated[
        float | None, typer.Option(help="The fraction of each training class that is held out for validation.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a value of the recipe: seed, epochs, batch, lr, ..., network.reduction. Repeatable.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the run in DIR from its checkpoint; without one, start it.")
    ] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip unreadable images.")] = False,
    log: Annotated[
        list[str] | None,
        typer.Option(
            metavar=f"[{'|'.join(literal_values(LoggerName))}]",
            help="Also log the metrics: tensorboard to DIR/tensorboard; wandb, mlflow and trackio as their environment "
            "variables say. --resume continues the same run there. Repeatable.",
        ),
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Print the time of each kind of work at the end.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the recipe with comments; train nothing.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Decode all data, print counts, unreadable files and faults of annotations; train nothing."
        ),
    ] = False,
    find_lr: Annotated[
        str | None,
        typer.Option(
            metavar="OUT.png",
            help="Find a learning rate: train a copy for a hundred steps while lr grows, plot the loss, and suggest "
            "the lr at which it has fallen halfway; train nothing else.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="With several processes: how long each waits for the others.")
    ] = 600.0,
    json: JsonOption = False,
) -> None:
    """Train a network by a recipe, in one process or in several that torchrun starts.

    Writes to DIR: recipe.toml (all values), run.json, checkpoint.pt, metrics.jsonl (one line per epoch),
    last.safetensors and best.safetensors (models), and curves.png. Ctrl-C and SIGTERM save a checkpoint after the
    current step and end the run with status 130 and 143; a second signal ends it at once. --resume continues from the
    checkpoint. On a CPU, and with deterministic=true on a GPU, a resumed run is bitwise identical to an uninterrupted
    run.

    `torchrun --nproc-per-node 8 -m senet train ...` trains with eight processes. The recipe's batch is divided among
    them; with sync_bn=true the result equals a run of one process up to rounding. Only the first process writes files.
    """
    from senet.recipes import load_recipe

    if (show or check) and not is_first():
        return
    given = [] if task is None else [f"task={task}"]
    settings = [*given, *(set_ or []), *_weights_settings(weights, missing, weights_entry)]
    if show:
        _show_recipe(_required(recipe, "--recipe NAME"), settings, network, json)
        return
    if find_lr is not None:
        refuse(
            {"--output": output, "--resume": resume, "--log": log, "--profile": profile},
            "is for a run, and --find-lr only plots losses; leave it out",
        )
        check_file_option("--find-lr", find_lr, suffixes=(".png",))
        loaded = load_recipe(_required(recipe, "--recipe NAME"), settings, note=note)
        options = {"val_data": val_data, "val_fraction": val_fraction, "skip_bad": skip_bad}
        of = _required(network, "NETWORK"), _required(data, "--data SPEC")
        _find_lr(*of, loaded, find_lr, json, options)
        return
    if check:
        _check(_required(data, "--data SPEC"), val_data, val_fraction, json)
        return
    _train(
        lambda: _Arguments(
            data=_required(data, "--data SPEC"),
            network=_required(network, "NETWORK"),
            output=_folder(_required(output, "--output DIR"), data),
            recipe=load_recipe(
                _required(recipe, "--recipe NAME"), settings, note=note if is_first() else lambda line: None
            ),
        ),
        json,
        {
            "val_data": val_data,
            "val_fraction": val_fraction,
            "skip_bad": skip_bad,
            "resume": resume,
            "log": log or (),
            "profile": profile,
            "timeout": timeout,
        },
    )


def _find_lr(network: str, data: str, recipe: "Recipe", plot: str, json: bool, options: dict[str, Any]) -> None:
    from senet.training import find_lr
    from senet.utils.lr_figure import draw_lr_curve

    with Live() as reporter:
        found = find_lr(network, data, recipe, reporter=reporter, **options)
    draw_lr_curve(
        found.lrs.tolist(), found.losses.tolist(), found.smoothed.tolist(), found.level, plot,
        f"{network} on {data}", suggestion=found.suggestion, recipe_lr=found.recipe_lr,
    )  # fmt: skip
    if json:
        steps = [{"lr": lr, "loss": loss} for lr, loss in zip(found.lrs, found.losses, strict=True)]
        facts = {"suggestion": found.suggestion, "lowest": found.lowest, "recipe_lr": found.recipe_lr}
        print_json({**facts, "diverged": found.diverged, "plot": plot, "steps": steps})
        return
    if found.suggestion is None:
        stdout.print("The loss does not fall at any learning rate: check the data and the weights.")
    else:
        end = f"; it diverges at {found.lrs[-1]:.3g}" if found.diverged else ""
        stdout.print(
            f"The loss has fallen halfway at lr={found.suggestion:.3g}, and is lowest at {found.lowest:.3g}{end}. "
            f"The recipe has lr={found.recipe_lr:g}; change it with --set lr={found.suggestion:.2g}.",
            soft_wrap=True,
        )
    note(f"drew {plot}")


def _weights_settings(weights: str | None, missing: str | None, entry: str | None) -> list[str]:
    """Return the initial weights as settings, so that the recipe of the run records them."""
    options = {"weights": weights, "missing": missing, "entry": entry}
    return [f"network.{key}={value}" for key, value in options.items() if value is not None]


def _show_recipe(name: str, settings: list[str], network: str | None, json: bool) -> None:
    """Print the recipe of a run with these options; refuse options that the network does not have."""
    from dataclasses import asdict

    from senet.recipes import create_network, load_recipe, recipe_heading, recipe_text

    shortened: list[str] = []
    recipe = load_recipe(name, settings, note=shortened.append)
    if network is not None:
        create_network(network, recipe, meta=True)
    if json:
        print_json(asdict(recipe))
        return
    heading = [recipe_heading(name), *(f"--set {setting}" for setting in settings), *shortened]
    stdout.print(recipe_text(recipe, "\n".join(filter(None, heading))), end="", soft_wrap=True)


def _folder(output: str, data: str | None) -> str:
    check_folder_option("--output", output, inputs=(data,))
    return output


def _required(value: str | None, what: str) -> str:
    if value is None:
        raise ValueError(f"{what} is missing; see `senet train --help`")
    return value


def _train(read: "Callable[[], _Arguments]", json: bool, options: dict[str, Any]) -> None:
    from senet.training import train as run_training
    from senet.training.distributed.command import errors_reported_once, read_together

    with errors_reported_once():
        given = read_together(read, options["timeout"])
        with Live() as reporter:
            run = run_training(given.network, given.data, given.recipe, given.output, reporter=reporter, **options)
    if is_first():
        _show_run(run, json, options["profile"])
    if run.signal is not None:
        raise typer.Exit(128 + run.signal)


def _show_run(run: "Run", json: bool, profile: bool) -> None:
    from senet.runs.reporting import describe_position

    if run.skipped:
        some = ", ".join(run.skipped[:3]) + (", ..." if len(run.skipped) > 3 else "")
        note(f"skipped {len(run.skipped)} unreadable images: {some}", style="yellow")
    if json:
        best = None if run.best is None else run.best.as_row()
        print_json({"output": str(run.output), "best": best, "epochs": len(run.epochs), "seconds": run.seconds})
    elif run.best is not None:
        of = run.task.decisive
        stdout.print(
            f"{of.name} {of.text(run.best.metrics[of.key])} after epoch {run.best.epoch}: "
            f"{run.output}/best.safetensors\n"
            f"curves: {run.output}/curves.png",
            soft_wrap=True,
        )
    if profile and not json:
        _show_seconds(run)
    if run.signal is not None:
        note(
            f"interrupted after {describe_position(len(run.epochs), run.step)}, which are saved; "
            "--resume continues from there",
            style="yellow",
        )


def _show_seconds(run: "Run") -> None:
    whole = sum(run.seconds.values())
    rows = [(work, f"{seconds:.1f}", f"{100 * seconds / whole:.1f} %") for work, seconds in run.seconds.items()]
    table("time by kind of work", ("", "seconds", "share"), [*rows, ("total", f"{whole:.1f}", "")])


def _check(data: str, val_data: str | None, val_fraction: float | None, json: bool) -> None:
    from senet.data import check_data, open_splits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the report has it
        opened = open_splits(data, val_data, val_fraction)
    splits = dict(zip(("training", "validation"), opened, strict=True))
    reports = {name: check_data(images, progress=progress) for name, images in splits.items()}
    if json:
        from dataclasses import asdict

        print_json({name: asdict(report) for name, report in reports.items()})
    else:
        for name, report in reports.items():
            _show_report(name, report)
    if not all(report.ok for report in reports.values()):
        raise typer.Exit(1)


def _show_report(name: str, report: "DataReport") -> None:
    columns: tuple[str, ...] = ("class", "images", "bad")
    rows: list[tuple[Any, ...]] = [(count.name, count.images, count.bad or "") for count in report.classes]
    rows.append(("total", report.images, len(report.bad)))
    boxes = [count.boxes for count in report.classes if count.boxes is not None]
    if boxes:
        columns = (*columns, "boxes")
        rows = [(*row, count) for row, count in zip(rows, [*boxes, sum(boxes)], strict=True)]
    table(f"{name} data: {report.spec}", columns, rows)
    if report.widths and report.heights:
        sizes = "{} to {} pixels wide and {} to {} high".format(*report.widths, *report.heights)
        stdout.print(f"{sizes}; {report.grey} grey, {report.palette} with a palette")
    if report.skipped_files.count:
        stdout.print(str(report.skipped_files), soft_wrap=True)
    for fault in report.faults:
        stdout.print(f"fault: {fault}", soft_wrap=True)
    for image in report.bad:
        stdout.print(f"bad: {image.name}: {image.reason}", soft_wrap=True)
    stdout.print()
