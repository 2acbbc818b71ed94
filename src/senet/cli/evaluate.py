"""`senet evaluate`: top-1 and top-5 error of a model file or of bare weights."""

from dataclasses import asdict

from senet.cli.common.batches import (
    BatchOption,
    ClassesOption,
    CropOption,
    DataOption,
    MeanOption,
    ResizeOption,
    SkipBadOption,
    StdOption,
    WorkersOption,
    open_batches,
)
from senet.cli.common.console import JsonOption, SetOption, note, print_json, progress, stdout, table
from senet.cli.common.networks import EntryOption, FileArgument, NetworkOption, open_file

__all__ = ["evaluate"]


def evaluate(
    file: FileArgument,
    data: DataOption,
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    set_: SetOption = None,
    resize: ResizeOption = None,
    crop: CropOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    classes: ClassesOption = None,
    batch: BatchOption = 128,
    workers: WorkersOption = 2,
    skip_bad: SkipBadOption = False,
    json: JsonOption = False,
) -> None:
    """Top-1 and top-5 error, single crop, in all and by class.

    Sizes, mean and deviation are the file's own unless given; of bare weights ImageNet's, and for CIFAR's networks
    32x32 images as they are.
    """
    from senet.evaluation.evaluate import evaluate_loader

    model = open_file(file, network, set_, weights_entry)
    loader = open_batches(
        model,
        data,
        resize=resize,
        crop=crop,
        mean=mean,
        std=std,
        classes=classes,
        batch=batch,
        workers=workers,
        skip_bad=skip_bad,
    )
    result = evaluate_loader(model, loader, progress=progress)
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
