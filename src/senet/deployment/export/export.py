"""`export`: write a network for an engine, rewritten, and compared with PyTorch before the file appears."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike, fspath

import torch
from torch import Tensor, nn

from senet.data import ImageData, Preprocessing
from senet.deployment.export.adapters import HalfPrecision, TensorsOnly, has_other_values
from senet.deployment.export.detector import export_detector
from senet.deployment.export.export_report import Comparison, ExportReport
from senet.deployment.export.network import Network, prepare, refuse_text, with_pixels
from senet.deployment.export.openvino_file import check_pair
from senet.deployment.export.options import (
    TOLERANCES,
    check_dynamic,
    check_precision,
    check_tolerance,
    format_of,
    require_packages,
)
from senet.deployment.export.signature import (
    batch_of,
    enlarged,
    input_names,
    input_tensors,
    output_names,
    spatial_axes,
    vary,
)
from senet.deployment.export.verification import check_deterministic, compare, open_file
from senet.deployment.export.writing import Captured, file_size, temporary, write
from senet.deployment.metadata import Metadata
from senet.deployment.quantization import open_calibration, read_batches
from senet.deployment.report import DeployReport
from senet.deployment.rewriting import FORMS, EngineName, Forms, fixed_forms
from senet.deployment.rewriting import rewrite as rewritten
from senet.evaluation import InputOptions
from senet.graph.example_inputs import Example
from senet.models import is_detector
from senet.tasks import stored_entries
from senet.utils.arguments import argument, in_python_or
from senet.utils.choices import ExportAxis, ExportFormat, Precision
from senet.utils.errors import ExportError, RewriteError
from senet.utils.files import check_output
from senet.utils.keywords import check_keywords
from senet.utils.option_types import check_path, check_switch
from senet.utils.progress import Progress, no_progress

__all__ = ["export"]

_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
_ENGINES: dict[ExportFormat, EngineName] = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "eager"}
# Random inputs that are compared, and images of the calibration data.
_RANDOM, _IMAGES = 4, 64
# Other sizes at which a file with dynamic axes is compared.
_BATCH, _PIXELS = 3, 32


@check_keywords()
def export(
    model: nn.Module,
    path: str | PathLike[str],
    example: Example | None = None,
    *,
    format: ExportFormat | None = None,
    precision: Precision = "fp32",
    dynamic: Sequence[ExportAxis] = (),
    rewrite: bool = True,
    preprocessing: Preprocessing | None = None,
    with_preprocessing: bool = False,
    classes: Sequence[str] | None = None,
    calibration: str | PathLike[str] | ImageData | Iterable[Tensor] | None = None,
    tolerance: float | None = None,
    progress: Progress = no_progress,
) -> ExportReport:
    """Write a network to a file for ONNX Runtime, OpenVINO or PyTorch.

    A copy is rewritten exactly (see `senet.deploy`), captured by `torch.export.export` and written under a temporary
    name. The file is then run in its engine and compared with the network in PyTorch. It appears only if the results
    agree: on the example, on random images, and on other batches and sizes where these are dynamic; with calibration
    data, on images of these.

    A detector is written as ONNX in fp32. The file takes one image of any size, (C, H, W) of 0 to 1, and returns boxes,
    labels (0 is the background) and scores, by name in the order of torchvision. Its boxes are compared with those of
    PyTorch, on images of `calibration` if given; `tolerance` is then 1e-3 by default, of the longer side of the image
    and of probabilities.

    Inputs and outputs are float32 in every precision. The file states class names, preprocessing, the network's name,
    the precision and the version of senet.

    Args:
        model: a network in evaluation mode, in float32; it is not modified.
        path: of the file: .onnx, .xml (weights in .bin next to it) or .pt2. Existing files are replaced.
        example: inputs of the network: a tensor, or a tuple or dict of inputs, whose shapes the file gets. One image of
            the network's size by default.
        format: "onnx", "openvino" or "torch"; by the suffix of `path` unless given.
        precision: "fp32"; "fp16": half precision, in OpenVINO of the weights alone; "bf16", in the format "torch" only;
            "int8", in "onnx" and "openvino": weights and activations quantized to 8 bits, which needs `calibration`.
        dynamic: axes of any length: "batch" and "size", the spatial axes of images.
        rewrite: rewrite the network for the engine first.
        preprocessing: how images enter the network; that of its `pretrained_cfg` by default.
        with_preprocessing: put the normalization into the graph. The input is 8-bit pixels (N, H, W, C), resized and
            cropped.
        classes: class names in the order of the logits; those of the network's `pretrained_cfg` by default.
        calibration: for int8, images that show the ranges of values: the spec of a data set, whose training split is
            used, an open data set, or batches of inputs of the file, of which 512 images are read. With other
            precisions the file is only compared on them.
        tolerance: largest accepted difference from PyTorch, relative to the largest output; by default 1e-4, 0.02,
            0.1 and 0.5 for fp32, fp16, bf16 and int8.
        progress: shows progress of reading calibration data.

    Returns:
        The file's size, inputs and outputs, and the comparison.

    Raises:
        DataError: the calibration data cannot be read.
        ExportError: PyTorch or the engine cannot convert the network, or the file differs from it by more than the
            tolerance. No file is written.
        ImportError: packages of the extra "deploy" are missing.
        MissingExampleError: the network does not run on a made-up image, and there is no example.
        NonFiniteError: the network returns NaN or infinity.
        OSError: the file cannot be written.
        TypeError: an argument of another type.
        ValueError: an unknown or unsupported format, precision or axis; a wrong suffix; a network in training mode, not
            in float32, or that cannot be deployed; an example, preprocessing, classes or calibration data that do not
            fit the network.

    Examples:
        >>> model = senet.create_model("se_resnet20").eval()
        >>> report = senet.export(model, "model.onnx", dynamic=["batch"])
        >>> report.inputs, report.comparison.relative < 1e-4
        ({'x': '(-1, 3, 32, 32) float32'}, True)
    """
    check_path("path", path)
    check_switch("rewrite", rewrite)
    check_switch("with_preprocessing", with_preprocessing)
    format = format_of(path, format)
    check_precision(format, precision)
    check_dynamic(dynamic)
    check_tolerance(tolerance)
    _check_calibration(precision, calibration)
    if _is_detector(model):
        _check_of_detector(format, precision, dynamic, with_preprocessing, preprocessing)
        return export_detector(
            model,
            path,
            example,
            calibration,
            classes=classes,
            rewriting=rewrite,
            tolerance=tolerance,
            progress=progress,
        )
    require_packages(format, precision)
    check_pair(path) if format == "openvino" else check_output(path)
    network = prepare(model, example, preprocessing, classes)
    if format == "torch":
        refuse_text(network)
    reference = with_pixels(network, network.model) if with_preprocessing else network.model
    inputs = vary(_pixels(network), 0) if with_preprocessing else network.example
    batches = _calibration(network, inputs, calibration, dynamic, with_preprocessing, progress)
    forms = _forms(network, format, precision, dynamic)
    fast, report = _rewritten(network, forms) if rewrite else (network.model, None)
    if precision in _HALF:
        fast = HalfPrecision(copy.deepcopy(fast), _HALF[precision])
    if with_preprocessing:
        fast = with_pixels(network, fast)
    taken = inputs
    if format != "torch" and has_other_values(inputs, network.output):
        fast, taken = TensorsOnly(fast, inputs), tuple(input_tensors(inputs))
    names = ["pixels"] if with_preprocessing else input_names(network.model, network.example)
    outputs = output_names(network.output, names)
    captured = Captured(
        model=fast,
        example=taken,
        dynamic=tuple(dynamic),
        inputs=names,
        outputs=outputs,
        calibration=batches,
        metadata=Metadata(
            model=network.name,
            precision=precision,
            classes=network.classes,
            preprocessing=network.preprocessing,
            takes_pixels=with_preprocessing,
            outputs=tuple(outputs),
            task=stored_entries(network.model),
        ),
    )
    with temporary(path, format) as written:
        write(captured, format, written)
        examples = _examples(inputs, dynamic, batches)
        comparison = compare(open_file(written, format), reference, examples)
        accepted = TOLERANCES[precision] if tolerance is None else tolerance
        if comparison.relative > accepted:
            check_deterministic(reference, inputs, accepted)
        _check_difference(comparison, precision, accepted)
    return ExportReport(
        path=fspath(path),
        format=format,
        precision=precision,
        size=file_size(path, format),
        inputs=_described(captured),
        outputs=captured.outputs,
        comparison=comparison,
        rewritten=report,
    )


def _rewritten(network: Network, forms: Forms) -> tuple[nn.Module, DeployReport]:
    try:
        return rewritten(network.model, network.example, forms)
    except RewriteError as error:
        without = in_python_or("rewrite=False", "--no-rewrite")
        raise RewriteError(f"{error}. {without} exports the network as it is") from error


def _check_calibration(precision: Precision, calibration: object) -> None:
    if precision == "int8" and calibration is None:
        raise ValueError(
            f"precision 'int8' needs calibration data, which show the ranges of the network's values; give "
            f"{argument('calibration')}"
        )
    if isinstance(calibration, Tensor):
        raise TypeError("calibration must be a list of batches, got one tensor; put it in a list")


def _forms(network: Network, format: ExportFormat, precision: Precision, dynamic: Sequence[ExportAxis]) -> Forms:
    engine = _ENGINES[format]
    if dynamic or precision != "fp32":
        return FORMS[engine]
    return fixed_forms(engine, batch_of(network.example))


def _is_detector(model: nn.Module) -> bool:
    return is_detector(str((getattr(model, "architecture", None) or {}).get("name", "")))


def _check_of_detector(
    format: ExportFormat,
    precision: Precision,
    dynamic: Sequence[ExportAxis],
    with_preprocessing: bool,
    preprocessing: Preprocessing | None,
) -> None:
    """Refuse what a file of a detector does not have.

    Raises:
        ValueError: an argument has such a value.
    """
    if format != "onnx":
        raise ValueError(
            f"a detector is exported as .onnx, got the format {format}: the number of its boxes depends on the image. "
            f"Its child `backbone` can be exported in every format"
        )
    if precision != "fp32":
        raise ValueError(f"a detector is exported in fp32, got precision {precision!r}; its child `backbone` in all")
    if dynamic:
        raise ValueError("the file of a detector takes one image of any size; leave out dynamic axes")
    if with_preprocessing or preprocessing is not None:
        raise ValueError(
            "the file of a detector resizes and normalizes images as the detector does; leave out options of "
            "preprocessing"
        )


def _pixels(network: Network) -> tuple[Tensor]:
    """Return zero pixels (N, H, W, C) of the size of the example."""
    images, channels, height, width = input_tensors(network.example)[0].shape
    return (torch.zeros(images, height, width, channels, dtype=torch.uint8),)


def _calibration(
    network: Network,
    inputs: Example,
    calibration: str | PathLike[str] | ImageData | Iterable[Tensor] | None,
    dynamic: Sequence[ExportAxis],
    takes_pixels: bool,
    progress: Progress,
) -> list[Tensor]:
    """Return batches of calibration data, as the file takes them; checked against its input.

    Raises:
        DataError, TypeError, ValueError: see `export`.
    """
    if calibration is None:
        return []
    tensors = input_tensors(inputs)
    if len(tensors) != 1:
        raise ValueError(f"calibration data are for networks of one input, and this one has {len(tensors)}")
    batches: Iterable[Tensor]
    if isinstance(calibration, PathLike):
        calibration = fspath(calibration)
    if isinstance(calibration, str | ImageData):
        if network.preprocessing is None:
            remedy = in_python_or(
                "give preprocessing=, or batches of inputs as calibration=", "give --crop, --mean and --std"
            )
            raise ValueError(
                f"a data set needs the preprocessing of {network.name}, which has none in its pretrained_cfg; {remedy}"
            )
        own = network.preprocessing
        options = InputOptions(resize=own.resize, crop=own.crop, mean=own.mean, std=own.std, batch=_IMAGES)
        batches = open_calibration(network.model, calibration, options, progress=progress)
        if takes_pixels:
            mean, std = own.scale(torch.device("cpu"))
            batches = [(x * std + mean).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous() for x in batches]
    else:
        batches = calibration
    free = {0} if "batch" in dynamic else set()
    free |= set(spatial_axes(tensors[0])) if "size" in dynamic else set()
    shape = [None if axis in free else side for axis, side in enumerate(tensors[0].shape)]
    batches = read_batches(batches, shape, tensors[0].dtype)
    images = sum(map(len, batches))
    if (batch := shape[0]) is not None and images < batch:
        raise ValueError(
            f"{images} calibration images are less than one batch of the file, {batch} images; give more, or export "
            f"a smaller batch"
        )
    return batches


def _examples(inputs: Example, dynamic: Sequence[ExportAxis], calibration: list[Tensor]) -> Iterator[Example]:
    """Yield inputs on which a file is compared: of the calibration data, or random; and of other batches and sizes."""
    if calibration:
        first = input_tensors(inputs)[0]
        rows = torch.cat(calibration)[: max(_IMAGES, len(first))]
        whole = len(rows) // len(first) * len(first)
        yield from ((rows[start : start + len(first)],) for start in range(0, whole, len(first)))
        if "batch" in dynamic:
            yield (rows[:_BATCH],)
        if "size" in dynamic:
            yield (enlarged(rows[: len(first)], _PIXELS),)
    else:
        yield inputs
        yield from (vary(inputs, seed) for seed in range(1, _RANDOM))
        if "batch" in dynamic:
            yield vary(inputs, _RANDOM, batch=_BATCH)
        if "size" in dynamic:
            yield vary(inputs, _RANDOM + 1, more=_PIXELS)


def _check_difference(comparison: Comparison, precision: Precision, tolerance: float) -> None:
    """Check a comparison.

    Raises:
        ExportError: the difference exceeds the tolerance.
    """
    if comparison.relative > tolerance:
        higher = "" if precision == "fp32" else "choose a higher precision, or "
        raise ExportError(
            f"the exported file differs from PyTorch by {comparison.relative:.2g} of the largest output, and "
            f"{tolerance:g} is accepted for {precision}: {higher}give a larger {argument('tolerance')} if that is "
            f"acceptable"
        )


def _described(captured: Captured) -> dict[str, str]:
    """Return shape and dtype of each input by name."""
    found = {}
    for name, tensor in zip(captured.inputs, input_tensors(captured.example), strict=True):
        free = {0} if "batch" in captured.dynamic else set()
        free |= set(spatial_axes(tensor)) if "size" in captured.dynamic else set()
        shape = ", ".join(str(-1 if axis in free else side) for axis, side in enumerate(tensor.shape))
        found[name] = f"({shape}) {str(tensor.dtype).removeprefix('torch.')}"
    return found
