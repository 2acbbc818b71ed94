"""Options for the images of a data set: preprocessing, class names, batch size. Declared once, for all commands."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from senet.cli.common.boundary import use_batch
from senet.cli.common.console import floats, progress
from senet.utils.arguments import as_options

if TYPE_CHECKING:
    from senet.data import Loader
    from senet.evaluation import InputOptions
    from senet.utils.sizes import Size

__all__ = ["DataOption", "WorkersOption", "image_size", "open_batches", "with_input_options"]

DataOption = Annotated[
    str,
    typer.Option(
        metavar="SPEC",
        help="Images: digits; a folder of class folders, or of train/ and val/; an uncompressed .tar of class folders; "
        "torchvision:NAME?root=DIR; hf:NAME; or wds:SHARDS. The validation split if there is one.",
    ),
]
WorkersOption = Annotated[int, typer.Option(help="Processes that decode images which do not fit in memory.")]

_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_CLASSES_HELP = "Class names, one per line, in the order of the logits; the network's own by default."


def with_input_options(
    *, batch: int | None, classes: str = "classes"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare the command line options of `InputOptions` for a command.

    The command has a keyword-only parameter `inputs`, which gets the `InputOptions`. In its place the returned command
    has one parameter for each option, from which Typer makes the command line.

    Args:
        batch: default of --batch, for the help; detectors have another. None for a command that reads no batches, which
            has neither --batch nor --skip-bad.
        classes: name of the option for a file of class names, if the command uses --classes otherwise.
    """
    named = f"--{classes.replace('_', '-')}"
    options = {
        "resize": Annotated[
            str | None,
            typer.Option(
                metavar="PIXELS|HxW",
                help="Shorter side before the crop; or height and width to cover. [default: the network's]",
            ),
        ],
        "crop": Annotated[
            str | None,
            typer.Option(
                metavar="PIXELS|HxW", help="Side of the central crop, or its height and width. [default: the network's]"
            ),
        ],
        "mean": Annotated[
            str | None,
            typer.Option(
                metavar="R,G,B", help="Mean of each channel, on the scale of 0 to 1. [default: the network's]"
            ),
        ],
        "std": Annotated[
            str | None,
            typer.Option(metavar="R,G,B", help="Standard deviation of each channel. [default: the network's]"),
        ],
        classes: Annotated[str | None, typer.Option(named, metavar="FILE", help=_CLASSES_HELP)],
    }
    defaults: dict[str, Any] = {}
    if batch is not None:
        options["batch"] = Annotated[
            int | None, typer.Option(help=f"Images per batch. [default: {batch}; 4 of a detector]")
        ]
        options["skip_bad"] = Annotated[bool, typer.Option("--skip-bad", help="Skip unreadable images.")]
        defaults = {"batch": None, "skip_bad": False}
    parameters = [
        inspect.Parameter(name, _KEYWORD, default=defaults.get(name), annotation=annotation)
        for name, annotation in options.items()
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**arguments: Any) -> None:
            texts = {name: arguments.pop(name) for name in options}
            texts["classes"] = texts.pop(classes)
            with as_options({"classes": named}):
                command(**arguments, inputs=_input_options(**texts))

        signature = inspect.signature(command)
        own = [parameter.replace(kind=_KEYWORD) for parameter in signature.parameters.values()]
        place = [parameter.name for parameter in own].index("inputs")
        signature = signature.replace(parameters=[*own[:place], *parameters, *own[place + 1 :]])
        vars(run)["__signature__"] = signature
        run.__annotations__ = {name: one.annotation for name, one in signature.parameters.items()}
        return run

    return decorate


def _input_options(
    *,
    resize: str | None,
    crop: str | None,
    mean: str | None,
    std: str | None,
    classes: str | None,
    **loading: Any,
) -> "InputOptions":
    """Parse the options.

    Raises:
        DataError: the file of class names cannot be read.
        ValueError: a size or number is invalid.
    """
    from senet.data.class_names import read_class_names
    from senet.evaluation import InputOptions

    return InputOptions(
        resize=image_size(resize, "--resize"),
        crop=image_size(crop, "--crop"),
        mean=floats(mean, "--mean"),
        std=floats(std, "--std"),
        classes=None if classes is None else read_class_names(classes),
        **loading,
    )


def image_size(text: str | None, option: str) -> "Size | None":
    """Parse the size of an option: pixels, or height and width.

    Raises:
        ValueError: it is neither.
    """
    from senet.utils.sizes import parse_size

    return None if text is None else parse_size(text, option)


def open_batches(model: Any, data: str, inputs: "InputOptions", workers: int) -> "Loader":
    """Open a loader of validation data for a network, showing progress.

    Raises:
        DataError: see `senet.evaluate`.
        ValueError: see `senet.evaluate`.
    """
    from senet.tasks import loader_for

    loader = loader_for(model, data, inputs, workers=workers, progress=progress)
    use_batch(loader.batch)
    return loader
