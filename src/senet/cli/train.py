"""`senet train`: a network, data and a recipe become a folder with a model in it."""

import time
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from senet.cli.console import JsonOption, note, print_json, stderr, stdout, track

__all__ = ["train"]


def train(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="A name of `senet models`, such as se_resnet20.")],
    data: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="digits; a folder with train/ and val/ of class folders; a .tar of class folders; "
            "torchvision:CIFAR10?root=DIR.",
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="A new or empty folder for the run.")],
    recipe: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="digits, cifar, cifar-short, or a file that ends in .toml.")
    ],
    val_data: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Validation data, where --data has no split of its own.")
    ] = None,
    val_fraction: Annotated[
        float | None, typer.Option(help="Keep this share of each training class for validation instead.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Replace a value of the recipe: seed, epochs, batch, lr, ..., network.reduction. Repeatable.",
        ),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out images that cannot be read.")] = False,
    json: JsonOption = False,
) -> None:
    """Train a network by a recipe.

    The folder gets recipe.toml (all values in force), metrics.jsonl (one line an epoch), last.safetensors and
    best.safetensors (models), and curves.png. Ctrl-C ends the run with the last epoch saved.
    """
    from dataclasses import asdict

    from senet.training import load_recipe
    from senet.training import train as run_training

    with _Live() as reporter:
        run = run_training(
            network,
            data,
            load_recipe(recipe, set_ or []),
            output,
            val_data=val_data,
            val_fraction=val_fraction,
            skip_bad=skip_bad,
            reporter=reporter,
        )
    if run.skipped:
        some = ", ".join(run.skipped[:3]) + (", ..." if len(run.skipped) > 3 else "")
        note(f"left out {len(run.skipped)} images that cannot be read: {some}", style="yellow")
    if run.best is None:
        note("interrupted before the first epoch was complete: nothing is saved", style="yellow")
        raise typer.Exit(130)
    if json:
        print_json({"output": str(run.output), "best": asdict(run.best), "epochs": len(run.epochs)})
    else:
        stdout.print(
            f"top-1 error {run.best.top1_error:.2f} % after epoch {run.best.epoch}: {run.output}/best.safetensors\n"
            f"curves: {run.output}/curves.png",
            soft_wrap=True,
        )
    if run.interrupted:
        note(f"interrupted; {run.output}/last.safetensors holds epoch {len(run.epochs)}", style="yellow")
        raise typer.Exit(130)


class _Live:
    """Shows a run: a live bar and a line an epoch on a terminal; elsewhere the lines alone."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._epoch_start = 0.0

    def __enter__(self) -> "_Live":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def track(self, steps: Any, total: int, what: str) -> Any:
        if self._progress is None:
            return track(steps, total, what)
        # A second live bar cannot stand beside the first, which says why it stands still.
        self._progress.update(self._task, doing="evaluating")
        return steps

    def start(self, model: Any, recipe: Any, training: Any, validation: Any) -> None:
        parameters = sum(p.numel() for p in model.parameters())
        note(
            f"{parameters:,} parameters; {training.images:,} training and {validation.images:,} validation images "
            f"of {len(training.data.classes)} classes, {recipe.crop_size}x{recipe.crop_size}"
        )
        note("epoch     lr   train loss  error %   val loss  error %   images/s", style="bold")
        if stderr.is_terminal:
            self._progress = Progress(
                TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[doing]:>40}"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=stderr,
                transient=True,
                expand=True,
            )
            fields = {"epoch": 1, "epochs": recipe.epochs, "doing": "first step"}
            self._task = self._progress.add_task("train", total=recipe.epochs * len(training), **fields)
            self._progress.start()
        self._epoch_start = time.perf_counter()

    def step(self, epoch: int, step: int, steps: int, images: int, loss: float, error: float) -> None:
        if self._progress is None:
            return
        speed = images / (time.perf_counter() - self._epoch_start)
        doing = f"{speed:,.0f} images/s  loss {loss:.3f}  error {error:4.1f} %"
        self._progress.update(self._task, completed=(epoch - 1) * steps + step, epoch=epoch, doing=doing)

    def epoch(self, epoch: Any, best: bool) -> None:
        note(
            f"{epoch.epoch:5d} {epoch.lr:6.3f} {epoch.train_loss:12.4f} {epoch.train_error:8.2f} {epoch.loss:10.4f} "
            f"{epoch.top1_error:8.2f} {epoch.images_per_second:10.0f}{'  best' if best else ''}"
        )
        self._epoch_start = time.perf_counter()
