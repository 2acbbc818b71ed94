"""`senet export`: write a network for an engine, or its weights for another library."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from senet.cli.common.console import JsonOption, SetOption, note, print_json, progress, refuse, stdout
from senet.cli.common.image_options import with_input_options
from senet.cli.common.inputs import InputOption, parse_inputs
from senet.cli.common.networks import (
    EntryOption,
    NetworkArgument,
    NetworkOption,
    WeightsOption,
    open_file,
    open_network,
)
from senet.cli.common.outputs import check_file_option, check_folder_option
from senet.utils.choices import ExportFormat, Library, Precision

if TYPE_CHECKING:
    from senet.data import Preprocessing
    from senet.deployment.export import ExportReport
    from senet.evaluation import InputOptions

__all__ = ["export"]

_WEIGHTS = (".safetensors", ".pth", ".pt")


@with_input_options(batch=None)
def export(
    file: NetworkArgument,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="The file to write: .onnx, .xml (OpenVINO) or .pt2 (torch.export); with --weights-format "
            ".safetensors, .pth or .pt; for timm also a folder, which gets model.safetensors and config.json.",
        ),
    ],
    format: Annotated[
        ExportFormat | None, typer.Option(help="The format of the file. [default: by the suffix of OUT]")
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="bf16 in the format torch only; int8 needs --calibrate.")
    ] = "fp32",
    dynamic: Annotated[
        str | None,
        typer.Option(
            metavar="AXES", help="Axes of any length: batch, size (height and width of images) or batch,size."
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Data, as for senet train, whose training images show the ranges of values for int8. With other "
            "precisions, the file is compared on them.",
        ),
    ] = None,
    rewrite: Annotated[
        bool, typer.Option("--rewrite/--no-rewrite", help="Rewrite the network exactly for the engine first.")
    ] = True,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="Put the normalization into the graph: its input is 8-bit pixels (N, H, W, C), resized and cropped.",
        ),
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest accepted difference from PyTorch, relative to the largest output. [default: by precision]"
        ),
    ] = None,
    input_: InputOption = None,
    weights_format: Annotated[
        Library | None,
        typer.Option(
            "--weights-format", help="Write weights alone, under the names and in the shapes of this library."
        ),
    ] = None,
    weights: WeightsOption = None,
    network: NetworkOption = None,
    weights_entry: EntryOption = None,
    set_: SetOption = None,
    *,
    inputs: "InputOptions",
    json: JsonOption = False,
) -> None:
    """Export a network for ONNX Runtime, OpenVINO or PyTorch; or its weights for timm or torchvision.

    The file takes inputs of the shape of --input, one image of the network's size by default, except for
    the axes of --dynamic. It is compared with the network in PyTorch, and appears only if the results agree.
    It states the class names and the preprocessing; senet evaluate and senet predict read it. A detector is
    written as .onnx, for one image of any size; its boxes are compared on images of --calibrate.

    With --weights-format, timm or torchvision load the weights with strict=True, if the library has the
    network. A folder has the form of the Hugging Face hub, which timm reads. A gain of SE's gates is folded into the
    batch norm before them; an architecture that the library does not have (another stride, pool, gate,
    placement, or more hidden units) is an error.
    """
    if weights_format is None:
        _check_suffix(output, format)
        check_file_option("--output", output, inputs=(file, network))
        model = open_network(file, network, set_, weights, weights_entry)
        _export(
            model,
            file,
            output,
            inputs,
            json,
            trained=weights is not None,
            example=parse_inputs(input_, model),
            format=format,
            precision=precision,
            dynamic=[] if dynamic is None else [axis.strip() for axis in dynamic.split(",")],
            rewrite=rewrite,
            with_preprocessing=with_preprocessing,
            calibration=calibrate,
            tolerance=tolerance,
        )
        return
    if format is not None:
        raise ValueError(
            "--format writes a network for an engine, and --weights-format its weights for another library: give one "
            "of them"
        )
    of_engines = {
        "--precision": precision != "fp32",
        "--dynamic": dynamic,
        "--calibrate": calibrate,
        "--no-rewrite": not rewrite,
        "--with-preprocessing": with_preprocessing,
        "--tolerance": tolerance,
        "--input": input_,
        "--weights": weights,
        **{f"--{name}": getattr(inputs, name) for name in ("resize", "crop", "mean", "std", "classes")},
    }
    refuse(of_engines, "has no effect with --weights-format, which writes weights alone")
    if weights_format == "timm" and not Path(output).suffix:
        check_folder_option("--output", output)
    else:
        check_file_option("--output", output, suffixes=_WEIGHTS, inputs=(file, network))
    _export_weights(open_file(file, network, set_, weights_entry), weights_format, output, json)


def _check_suffix(output: str, format: ExportFormat | None) -> None:
    """Check that the suffix of the file is that of a format.

    Raises:
        ValueError: it is not.
    """
    from senet.deployment.export.options import format_of

    if format is None and output.lower().endswith(_WEIGHTS):
        raise ValueError(
            f"{output!r} is a file of weights, which needs --weights-format timm or torchvision; for an engine, the "
            f"name ends in .onnx, .xml or .pt2"
        )
    format_of(output, format)


def _export(
    model: Any, name: str, output: str, inputs: "InputOptions", json: bool, *, trained: bool, **options: Any
) -> None:
    """Write a network for an engine."""
    import senet
    from senet.models import names_file

    report = senet.export(
        model.eval(),
        output,
        preprocessing=_preprocessing(model, inputs),
        classes=inputs.classes,
        progress=progress,
        **options,
    )
    if json:
        print_json(_as_json(report))
    else:
        _print(report)
    note(f"wrote {output}: {report.size / 1e6:,.1f} MB")
    if not trained and not names_file(name):
        note(f"the weights of {name} are random: give --weights, or a file, for trained ones", style="yellow")


def _preprocessing(model: Any, inputs: "InputOptions") -> "Preprocessing | None":
    """Return the preprocessing of the options; None without them, which is that of the network.

    Raises:
        ValueError: a value is invalid, or the network has no preprocessing and an option is missing.
    """
    from senet.data import Preprocessing

    if all(value is None for value in (inputs.resize, inputs.crop, inputs.mean, inputs.std)):
        return None
    cfg = getattr(model, "pretrained_cfg", None)
    if isinstance(cfg, dict):
        return Preprocessing.of(cfg, inputs)
    if inputs.crop is None or inputs.mean is None or inputs.std is None:
        raise ValueError(
            f"{type(model).__name__} has no pretrained_cfg, which says how images enter it: give --crop, --mean and "
            f"--std"
        )
    resize = inputs.crop if inputs.resize is None else inputs.resize
    return Preprocessing(resize, inputs.crop, tuple(inputs.mean), tuple(inputs.std))


def _print(report: "ExportReport") -> None:
    if report.rewritten is not None:
        stdout.print(str(report.rewritten))
    for name, text in report.inputs.items():
        stdout.print(f"input {name} {text}")
    stdout.print(f"output{'s' * (len(report.outputs) > 1)} {', '.join(report.outputs)}")
    found = report.comparison
    same = "" if found.top1 is None else f"; same class for {found.top1:.1%} of {found.inputs} images"
    if found.boxes is not None:
        same = f" or of a probability; {found.matched:,} of {found.boxes:,} boxes match, in {found.inputs} images"
        if not found.boxes:
            note("no boxes were compared: give images with objects as --calibrate SPEC", style="yellow")
    stdout.print(
        f"largest difference from PyTorch {found.difference:.2g}, {found.relative:.2g} of "
        f"{'the largest output' if found.boxes is None else 'the longer side of the image'}{same}"
    )


def _as_json(report: "ExportReport") -> dict[str, Any]:
    rewritten = None if report.rewritten is None else Counter(row.action for row in report.rewritten.rows)
    return {
        "output": report.path,
        "format": report.format,
        "precision": report.precision,
        "bytes": report.size,
        "inputs": report.inputs,
        "outputs": report.outputs,
        "difference": report.comparison.difference,
        "relative_difference": report.comparison.relative,
        "top1_agreement": report.comparison.top1,
        "compared": report.comparison.inputs,
        "boxes": report.comparison.boxes,
        "matched_boxes": report.comparison.matched,
        "rewritten": rewritten,
    }


def _export_weights(model: Any, library: Library, output: str, json: bool) -> None:
    """Write a network's weights for another library."""
    from senet.weights import export_weights, write_timm_folder, write_weights

    exported, call = export_weights(model, library), ""
    if Path(output).suffix:
        write_weights(exported.tensors, output)
    else:
        write_timm_folder(exported, output, model.pretrained_cfg)
        call = f"timm.create_model({f'local-dir:{output}'!r}, pretrained=True)"
    if json:
        print_json(
            {
                "output": output,
                "library": exported.library,
                "network": exported.network,
                "options": exported.options,
                "tensors": len(exported.tensors),
            }
        )
    else:
        stdout.print(f"model = {call or exported.call}", soft_wrap=True)
    note(f"wrote {output}: {len(exported.tensors)} tensors")
