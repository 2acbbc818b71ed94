"""`senet predict`: the most probable classes of images, or the objects in them."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from senet.cli.common.console import JsonOption, SetOption, note, print_json, progress, stdout, table
from senet.cli.common.image_options import with_input_options
from senet.cli.common.networks import (
    EntryOption,
    NetworkOption,
    RunnableArgument,
    TaskOption,
    check_task,
    open_runnable,
)
from senet.cli.common.outputs import check_file_option, data_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from senet.data import ImageData
    from senet.evaluation import InputOptions, Prediction
    from senet.tasks import Task

__all__ = ["predict"]

# More images than this would make a picture of several hundred megapixels.
GRID_LIMIT = 40


@with_input_options(batch=32)
def predict(
    file: RunnableArgument,
    images: Annotated[
        list[str] | None, typer.Argument(metavar="IMAGE|FOLDER...", help="Image files, or folders of them.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC", help="Labelled images instead, as of senet evaluate: errors are marked in grid and CSV."
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            help="Number of classes or boxes per image; 3 by default, all of multi-label networks and detectors."
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Lowest probability of a detector's boxes, 0.5 by default.")
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            metavar="OUT.png",
            help=f"Draw the first {GRID_LIMIT} images with their labels; of --data errors first, up to half of them.",
        ),
    ] = None,
    csv: Annotated[str | None, typer.Option(metavar="OUT.csv", help="Write a line for each image.")] = None,
    task: TaskOption = None,
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    set_: SetOption = None,
    *,
    inputs: "InputOptions",
    json: JsonOption = False,
) -> None:
    """Predict the most probable classes of images, with their probabilities; of labelled images, mark the errors.

    A detector predicts boxes, and draws those of labelled images in dashed lines.
    """
    import senet
    from senet.evaluation import write_predictions
    from senet.tasks import task_of
    from senet.utils.errors import DataError

    for option, path, suffix in (("--grid", grid, ".png"), ("--csv", csv, ".csv")):
        check_file_option(option, path, suffixes=(suffix,), inputs=(file, *(images or ())))
    given = _images(images or [], data)
    if grid is not None or csv is not None:
        read = given if isinstance(given, list) else data_files(given)
        for option, path in (("--grid", grid), ("--csv", csv)):
            check_file_option(option, path, inputs=read)
    model = open_runnable(file, network, set_, weights_entry)
    of = task_of(model)
    check_task(of, task)
    top = of.shown if top is None else top
    found = senet.predict(model, given, inputs, top=top, threshold=threshold, progress=progress)
    if len(found) < len(given):
        note(f"skipped {len(given) - len(found)} unreadable images", style="yellow")
    if not found:
        raise DataError("none of the images is readable")
    if grid is not None:
        _draw(found, given, of, grid)
    if csv is not None:
        write_predictions(found, csv)
    if json:
        print_json([{key: value for key, value in asdict(p).items() if value is not None} for p in found])
    else:
        _print(found, of)
    for path, done in ((grid, "drew"), (csv, "wrote")):
        if path is not None:
            note(f"{done} {path}")


def _images(images: list[str], data: str | None) -> "list[Path] | ImageData":
    """Return the image files, or the labelled images.

    Raises:
        DataError: they cannot be opened.
        ValueError: both are given, or none.
    """
    from senet.data import list_images, open_data

    if bool(images) == (data is not None):
        raise ValueError("expected images or folders, or --data SPEC; give one of them")
    return list_images(images) if data is None else open_data(data)


def _print(found: "Sequence[Prediction]", task: "Task") -> None:
    """Print a table of the predictions; what labelled images show follows the image."""
    rows = []
    for p in found:
        rows.append([p.name, *([task.shows(p.truth)] if p.truth is not None else []), task.describe(p)])
    truth = ["truth"] if found[0].truth is not None else []
    table("", ["image", *truth, task.described], rows, text=2 + len(truth))
    judged = [p for p in found if p.wrong is not None]
    if judged:
        stdout.print(f"\n{sum(bool(p.wrong) for p in judged):,} of {len(judged):,} predictions are wrong")


def _draw(found: "Sequence[Prediction]", given: "list[Path] | ImageData", task: "Task", path: str) -> None:
    """Draw a grid of the images; of labelled ones errors first, framed, with what the image shows."""
    from senet.data import ImageData, open_image

    if not isinstance(given, ImageData):
        shown = found[:GRID_LIMIT]
        task.draw([open_image(p.name) for p in shown], shown, path)
        return
    wrong = [p for p in found if p.wrong]
    right = [p for p in found if not p.wrong]
    errors = min(len(wrong), max(GRID_LIMIT // 2, GRID_LIMIT - len(right)))
    shown = [*_spread(wrong, errors), *_spread(right, GRID_LIMIT - errors)]
    index = {given.name(number): number for number in range(len(given))}
    title = ""
    if found[0].wrong is not None:
        title = f"Wrong predictions: {len(wrong):,} of {len(found):,}"
        if wrong and len(shown) > errors:
            title += " (shown first)" if errors == len(wrong) else f" ({errors:,} of them are shown first)"
    task.draw([given[index[p.name]][0] for p in shown], shown, path, title)


def _spread(found: "Sequence[Prediction]", count: int) -> "list[Prediction]":
    """Return at most `count` predictions at equal distances, because data are often sorted by class."""
    count = min(count, len(found))
    return [found[number * len(found) // count] for number in range(count)]
