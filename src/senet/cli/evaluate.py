"""`senet evaluate`: top-1 and top-5 error of a model file or of weights."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from senet.cli.common.batches import DataOption, WorkersOption, open_batches, with_input_options
from senet.cli.common.console import JsonOption, SetOption, note, print_json, progress, stdout, table
from senet.cli.common.networks import EntryOption, NetworkOption, RunnableArgument, open_runnable

if TYPE_CHECKING:
    from senet.evaluation import InputOptions

__all__ = ["evaluate"]


@with_input_options(batch=128)
def evaluate(
    file: RunnableArgument,
    data: DataOption,
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    set_: SetOption = None,
    *,
    inputs: "InputOptions",
    workers: WorkersOption = 2,
    json: JsonOption = False,
) -> None:
    """Evaluate top-1 and top-5 error with a single crop, in total and by class.

    Preprocessing is the file's own by default. For weights without it, it is ImageNet's, or 32x32 images without
    resizing for CIFAR networks.
    """
    from senet.evaluation import evaluate_loader

    model = open_runnable(file, network, set_, weights_entry)
    loader = open_batches(model, data, inputs, workers)
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
        note(f"skipped {len(result.skipped)} unreadable images", style="yellow")
