"""`senet predict`: the most probable classes of images."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from senet.cli.common.batches import with_input_options
from senet.cli.common.console import JsonOption, SetOption, note, print_json, progress, table
from senet.cli.common.networks import EntryOption, NetworkOption, RunnableArgument, open_runnable
from senet.cli.common.outputs import check_file_option

if TYPE_CHECKING:
    from senet.evaluation import InputOptions

__all__ = ["predict"]

# More images than this would make a picture of several hundred megapixels.
GRID_LIMIT = 64


@with_input_options(batch=32)
def predict(
    file: RunnableArgument,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE|FOLDER...", help="Image files, or folders of them.")],
    top: Annotated[
        int | None, typer.Option(help="Number of classes per image; 3 by default, all of a multi-label network.")
    ] = None,
    grid: Annotated[
        str | None, typer.Option(metavar="OUT.png", help=f"Draw the first {GRID_LIMIT} images with their labels.")
    ] = None,
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    set_: SetOption = None,
    *,
    inputs: "InputOptions",
    json: JsonOption = False,
) -> None:
    """Predict the most probable classes of images, with their probabilities."""
    import senet
    from senet.data import list_images, open_image
    from senet.tasks import task_of
    from senet.utils.errors import DataError
    from senet.utils.figures import draw_grid

    check_file_option("--grid", grid, suffixes=(".png",), inputs=(file, *images))
    files = list_images(images)
    check_file_option("--grid", grid, inputs=files)
    model = open_runnable(file, network, set_, weights_entry)
    task = task_of(model)
    found = senet.predict(model, files, inputs, top=task.shown if top is None else top, progress=progress)
    if len(found) < len(files):
        note(f"skipped {len(files) - len(found)} unreadable images", style="yellow")
    if not found:
        raise DataError("none of the images is readable")
    if grid is not None:
        labels = [(task.caption(p.classes, p.probabilities), False) for p in found[:GRID_LIMIT]]
        draw_grid([open_image(prediction.name) for prediction in found[:GRID_LIMIT]], labels, grid)
    if json:
        print_json([asdict(prediction) for prediction in found])
    else:
        rows = [
            [p.name, "  ".join(f"{c} {100 * v:.1f} %" for c, v in zip(p.classes, p.probabilities, strict=True))]
            for p in found
        ]
        table("", ["image", "classes, most probable first"], rows, text=2)
    if grid is not None:
        note(f"drew {grid}")
