"""`senet evaluate`: the metrics of a model file or of weights on a data set."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from senet.cli.common.console import JsonOption, SetOption, note, print_json, progress, stdout, table
from senet.cli.common.image_options import DataOption, WorkersOption, open_batches, with_input_options
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
    from senet.evaluation import InputOptions
    from senet.tasks import Result

__all__ = ["evaluate"]


@with_input_options(batch=128)
def evaluate(
    file: RunnableArgument,
    data: DataOption,
    task: TaskOption = None,
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    set_: SetOption = None,
    *,
    inputs: "InputOptions",
    workers: WorkersOption = 2,
    confusion: Annotated[
        str | None, typer.Option(metavar="OUT.png", help="Draw the confusion matrix of a classifier.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Evaluate a network, in total and by class.

    A classifier: top-1 and top-5 error with a single crop; a multi-label network: mAP and F1; a detector: COCO's
    average precision.

    Preprocessing is the file's own by default. For weights without it, it is ImageNet's, or 32x32 images without
    resizing for CIFAR networks.
    """
    from senet.tasks import task_of
    from senet.utils.arguments import as_options
    from senet.utils.confusion_plot import draw_confusion

    check_file_option("--confusion", confusion, suffixes=(".png",), inputs=(file,))
    model = open_runnable(file, network, set_, weights_entry)
    of = task_of(model)
    check_task(of, task)
    loader = open_batches(model, data, inputs, workers)
    if confusion is not None:
        check_file_option("--confusion", confusion, inputs=data_files(loader.data))
    matrix: Any = None
    if confusion is None:
        result: Result = of.evaluate(model, loader, progress=progress)
    else:
        with as_options({"confusion": "--confusion"}):
            result = classified = of.evaluate_confusion(model, loader, progress=progress)
        matrix = classified.confusion
    values = of.values(result)
    more = {metric.key: getattr(result, metric.key) for metric in of.reported}
    more = {metric.key: more[metric.key] for metric in of.reported if more[metric.key] != metric.undefined}
    if json:
        found = (
            values
            | more
            | {
                "images": result.images,
                "skipped": len(result.skipped),
                "classes": [asdict(one) for one in result.classes],
            }
        )
        print_json(found if matrix is None else found | {"confusion": matrix.tolist()})
    else:
        rows = [[c.name, c.images, *(m.number(getattr(c, m.key)) for m in of.by_class)] for c in result.classes]
        table("", ["class", "images", *(f"{metric.name} {metric.unit}".rstrip() for metric in of.by_class)], rows)
        ordered = sorted(of.validation, key=lambda metric: metric.unit != of.decisive.unit)  # losses last
        texts = [f"{metric.name} {metric.text(values[metric.key])}" for metric in ordered]
        texts += [f"{metric.name} {metric.text(more[metric.key])}" for metric in of.reported if metric.key in more]
        stdout.print(f"\n{', '.join(texts)}, {result.images:,} images")
    if result.skipped:
        note(f"skipped {len(result.skipped)} unreadable images", style="yellow")
    if confusion is not None:
        error = f"{of.decisive.name} {of.decisive.text(values[of.decisive.key])}"
        draw_confusion(matrix, loader.data.classes, confusion, f"{loader.data.spec}: {error}")
        note(f"drew {confusion}")
