"""`senet evaluate`: top-1 and top-5 error of a model file or of bare weights."""

from dataclasses import asdict
from typing import Annotated

import typer

from senet.cli.console import JsonOption, SetOption, floats, note, print_json, stdout, table, track
from senet.cli.networks import FileArgument, NetworkOption, open_file

__all__ = ["CropOption", "MeanOption", "ResizeOption", "StdOption", "evaluate"]

ResizeOption = Annotated[int | None, typer.Option(help="Pixels of the shorter side before the crop.")]
CropOption = Annotated[int | None, typer.Option(help="Pixels of a side of the central crop.")]
MeanOption = Annotated[str | None, typer.Option(metavar="R,G,B", help="Mean of the channels, on the scale of 0 to 1.")]
StdOption = Annotated[str | None, typer.Option(metavar="R,G,B", help="Standard deviation of the channels.")]


def evaluate(
    file: FileArgument,
    data: Annotated[str, typer.Option(metavar="SPEC", help="As for senet train; its validation split if it has one.")],
    network: NetworkOption = None,
    set_: SetOption = None,
    resize: ResizeOption = None,
    crop: CropOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 128,
    workers: Annotated[int, typer.Option(help="Processes that decode, where images do not fit in memory.")] = 2,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out images that cannot be read.")] = False,
    json: JsonOption = False,
) -> None:
    """Top-1 and top-5 error, single crop, in all and by class.

    Sizes, mean and deviation are the file's own unless given; of bare weights ImageNet's, and for CIFAR's networks
    32x32 images as they are.
    """
    import senet

    model = open_file(file, network, set_)
    result = senet.evaluate(
        model,
        data,
        resize=resize,
        crop=crop,
        mean=floats(mean, "--mean"),
        std=floats(std, "--std"),
        batch=batch,
        workers=workers,
        skip_bad=skip_bad,
        track=track,
    )
    if json:
        print_json(
            {
                "top1_error": result.top1_error,
                "top5_error": result.top5_error,
                "loss": result.loss,
                "images": result.images,
                "skipped": len(result.skipped),
                "classes": [asdict(one) for one in result.classes],
            }
        )
    else:
        rows = [[c.name, c.images, f"{c.top1_error:.2f}", f"{c.top5_error:.2f}"] for c in result.classes]
        table("", ["class", "images", "top-1 error %", "top-5 error %"], rows)
        stdout.print(
            f"\ntop-1 error {result.top1_error:.2f} %, top-5 error {result.top5_error:.2f} %, "
            f"loss {result.loss:.4f}, {result.images:,} images"
        )
    if result.skipped:
        note(f"left out {len(result.skipped)} images that cannot be read", style="yellow")
