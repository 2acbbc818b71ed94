"""Options that say how images enter a network, and the batches that they give."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from senet.cli.common.console import floats, progress

if TYPE_CHECKING:
    from senet.data import Loader
    from senet.utils.sizes import Size

__all__ = [
    "BatchOption",
    "ClassesOption",
    "CropOption",
    "DataOption",
    "MeanOption",
    "ResizeOption",
    "SkipBadOption",
    "StdOption",
    "WorkersOption",
    "class_names",
    "image_size",
    "open_batches",
]

DataOption = Annotated[
    str, typer.Option(metavar="SPEC", help="As for senet train; its validation split if it has one.")
]
ResizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS|HxW", help="The shorter side before the crop; or height and width that the image is to cover."
    ),
]
CropOption = Annotated[
    str | None, typer.Option(metavar="PIXELS|HxW", help="A side of the central crop, or its height and width.")
]
MeanOption = Annotated[str | None, typer.Option(metavar="R,G,B", help="Mean of the channels, on the scale of 0 to 1.")]
StdOption = Annotated[str | None, typer.Option(metavar="R,G,B", help="Standard deviation of the channels.")]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="FILE",
        help="Names of the network's classes, one a line, in the order of its logits; its own unless given.",
    ),
]
BatchOption = Annotated[int, typer.Option(help="Images at a time.")]
WorkersOption = Annotated[int, typer.Option(help="Processes that decode, where images do not fit in memory.")]
SkipBadOption = Annotated[bool, typer.Option("--skip-bad", help="Leave out images that cannot be read.")]


def image_size(text: str | None, option: str) -> "Size | None":
    """The size of an option: pixels, or height and width.

    Raises:
        ValueError: it is neither.
    """
    from senet.utils.sizes import parse_size

    return None if text is None else parse_size(text, option)


def class_names(file: str | None) -> list[str] | None:
    """The names in a file of --classes.

    Raises:
        DataError: it cannot be read, or a line is empty.
    """
    from senet.data.class_names import read_class_names

    return None if file is None else read_class_names(file)


def open_batches(
    model: Any,
    data: str,
    *,
    resize: str | None,
    crop: str | None,
    mean: str | None,
    std: str | None,
    classes: str | None,
    batch: int,
    workers: int,
    skip_bad: bool,
) -> "Loader":
    """Batches of a data set as a network takes them; sizes, mean and deviation are the network's own unless given.

    Raises:
        DataError, ValueError: as `senet.evaluate`.
    """
    from senet.evaluation.evaluate import loader_for

    return loader_for(
        model,
        data,
        resize=image_size(resize, "--resize"),
        crop=image_size(crop, "--crop"),
        mean=floats(mean, "--mean"),
        std=floats(std, "--std"),
        classes=class_names(classes),
        batch=batch,
        workers=workers,
        skip_bad=skip_bad,
        progress=progress,
    )
