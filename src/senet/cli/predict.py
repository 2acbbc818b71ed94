"""`senet predict`: the most probable classes of images."""

from dataclasses import asdict
from typing import Annotated

import typer

from senet.cli.common.batches import (
    BatchOption,
    ClassesOption,
    CropOption,
    MeanOption,
    ResizeOption,
    SkipBadOption,
    StdOption,
    class_names,
    image_size,
)
from senet.cli.common.console import JsonOption, SetOption, floats, note, print_json, progress, table
from senet.cli.common.networks import EntryOption, FileArgument, NetworkOption, open_file
from senet.cli.common.outputs import check_file_option

__all__ = ["predict"]

# More images than this would make a picture of several hundred megapixels.
GRID_LIMIT = 64


def predict(
    file: FileArgument,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE|FOLDER...", help="Images, or folders of images.")],
    top: Annotated[int, typer.Option(help="How many classes to show of each image.")] = 3,
    grid: Annotated[
        str | None, typer.Option(metavar="OUT.png", help=f"Draw the first {GRID_LIMIT} images with their labels.")
    ] = None,
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    set_: SetOption = None,
    resize: ResizeOption = None,
    crop: CropOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    classes: ClassesOption = None,
    batch: BatchOption = 32,
    skip_bad: SkipBadOption = False,
    json: JsonOption = False,
) -> None:
    """The most probable classes of images, with their probabilities."""
    import senet
    from senet.evaluation.evaluate import image_files, open_image
    from senet.utils.errors import DataError
    from senet.utils.figures import draw_grid

    check_file_option("--grid", grid, suffixes=(".png",), inputs=(file, *images))
    files = image_files(images)
    check_file_option("--grid", grid, inputs=files)
    model = open_file(file, network, set_, weights_entry)
    found = senet.predict(
        model,
        files,
        top=top,
        batch=batch,
        resize=image_size(resize, "--resize"),
        crop=image_size(crop, "--crop"),
        mean=floats(mean, "--mean"),
        std=floats(std, "--std"),
        classes=class_names(classes),
        skip_bad=skip_bad,
        progress=progress,
    )
    if len(found) < len(files):
        note(f"left out {len(files) - len(found)} images that cannot be read", style="yellow")
    if not found:
        raise DataError("none of the images can be read")
    if grid is not None:
        labels = [(f"{p.classes[0]}  {100 * p.probabilities[0]:.0f} %", False) for p in found[:GRID_LIMIT]]
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
