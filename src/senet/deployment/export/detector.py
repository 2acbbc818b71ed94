"""Write a whole detector as ONNX, and compare the boxes that the file finds with those of PyTorch.

The exporter of `torch.export` needs shapes that do not depend on values, which the number of boxes does. PyTorch's
earlier exporter, which traces, writes torchvision's detectors.
"""

import io
import warnings
from collections.abc import Iterable, Sequence
from itertools import islice
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from senet.data import ImageData, Preprocessing, open_images
from senet.data.class_names import check_names
from senet.deployment.deploy import check_deployable
from senet.deployment.export.export_report import Comparison, ExportReport
from senet.deployment.export.network import on_cpu
from senet.deployment.export.onnx_file import write_onnx_model
from senet.deployment.export.options import require_packages
from senet.deployment.export.verification import open_file
from senet.deployment.export.writing import file_size, temporary
from senet.deployment.metadata import Metadata
from senet.deployment.rewriting import FORMS, rewrite
from senet.graph.example_inputs import Example, split_example
from senet.tasks import stored_entries
from senet.utils.arguments import argument
from senet.utils.errors import ExportError, NonFiniteError, first_line
from senet.utils.files import check_output
from senet.utils.progress import Progress, no_progress

__all__ = ["TOLERANCE", "export_detector"]

# Largest accepted difference of a box, relative to the longer side of the image, and of a probability.
TOLERANCE = 1e-3
# Share of the boxes that may have no counterpart: some are at torchvision's limits of probability, overlap or number.
_UNMATCHED = 0.01
# Images of the data, and random ones, that are compared.
_IMAGES, _RANDOM = 16, 2
_OPSET = 17


def export_detector(
    model: nn.Module,
    path: str | PathLike[str],
    example: Example | None,
    images: str | PathLike[str] | ImageData | Iterable[Tensor] | None,
    *,
    classes: Sequence[str] | None,
    rewriting: bool,
    tolerance: float | None,
    progress: Progress = no_progress,
) -> ExportReport:
    """Write a detector to an ONNX file, see `senet.export`.

    The file takes one image of any size, (C, H, W) of 0 to 1, and resizes and normalizes it. Outputs have the names of
    torchvision: boxes (n, 4), x1, y1, x2, y2 in pixels of the image; labels (n,), 0 is the background and k the class
    k - 1; scores (n,), probabilities of 0 to 1.

    Args:
        model: a detector of `create_model` in evaluation mode, in float32; it is not modified.
        path: of the file, .onnx.
        example: images (N, C, H, W) to compare; random ones by default.
        images: more images to compare: a spec or data set, of which 16 are read, or tensors (N, C, H, W) of 0 to 1.
        classes: class names; those of its `pretrained_cfg` by default.
        rewriting: rewrite the network first.
        tolerance: largest accepted difference, 1e-3 by default.
        progress: shows progress.
    """
    require_packages("onnx", "fp32")
    check_output(path)
    check_deployable(model)
    if any(tensor.dtype != torch.float32 for tensor in model.parameters()):
        raise ValueError("detectors are exported from float32: call model.float()")
    model = on_cpu(model)
    cfg: Any = model.pretrained_cfg
    names = check_names(classes, cfg.get("label_names"), cfg["num_classes"]) if classes else cfg.get("label_names")
    names = names or [str(number) for number in range(cfg["num_classes"])]
    compared = _compared(cfg, example, images)
    outputs = list(_detections(model, compared[0]))
    fast, report = rewrite(model, None, FORMS["onnxruntime"]) if rewriting else (model, None)
    metadata = Metadata(
        model=str(cfg["architecture"]),
        precision="fp32",
        classes=tuple(names),
        preprocessing=Preprocessing.of(cfg),
        outputs=tuple(outputs),
        task=stored_entries(model),
    )
    with temporary(path, "onnx") as written:
        write_onnx_model(_traced(fast, compared[0], outputs), written, metadata)
        comparison = _compare(model, written, compared, outputs, progress)
        _check(comparison, TOLERANCE if tolerance is None else tolerance)
    return ExportReport(
        path=fspath(path),
        format="onnx",
        precision="fp32",
        size=file_size(path, "onnx"),
        inputs={"image": f"({len(cfg['mean'])}, -1, -1) float32"},
        outputs=outputs,
        comparison=comparison,
        rewritten=report,
    )


def _compared(
    cfg: dict[str, Any], example: Example | None, images: str | PathLike[str] | ImageData | Iterable[Tensor] | None
) -> list[Tensor]:
    """Return the images (C, H, W) of 0 to 1 to compare.

    Raises:
        DataError: they cannot be read.
        TypeError, ValueError: an example is not an image.
    """
    channels, side = len(cfg["mean"]), int(cfg["min_size"])
    found: list[Tensor] = []
    if isinstance(images, str | PathLike | ImageData):
        data = images if isinstance(images, ImageData) else open_images(fspath(images))
        for index in range(min(_IMAGES, len(data))):
            pixels = np.array(data.read(index).convert("RGB" if channels == 3 else "L"))
            found.append(torch.from_numpy(pixels).view(*pixels.shape[:2], -1).permute(2, 0, 1).float() / 255)
    elif images is not None:
        found += [image for batch in islice(images, _IMAGES) for image in _batch(batch, channels)]
    if example is not None:
        args, kwargs = split_example(example)
        found += [image for batch in (*args, *kwargs.values()) for image in _batch(batch, channels)]
    if not found:
        generator = torch.Generator().manual_seed(0)
        sizes = [(side, side * 4 // 3), (side * 4 // 3, side)][:_RANDOM]
        found = [torch.rand(channels, *size, generator=generator) for size in sizes]
    return found


def _batch(images: Any, channels: int) -> list[Tensor]:
    if isinstance(images, Tensor) and images.ndim == 3:
        images = images[None]
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != channels:
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"a detector takes images (N, {channels}, H, W) of 0 to 1, got {got}")
    return list(images.detach().cpu().float())


@torch.no_grad()
def _detections(model: Any, image: Tensor) -> dict[str, Tensor]:
    """Return what a detector finds in an image (C, H, W).

    Raises:
        NonFiniteError: it returns NaN or infinity.
    """
    (found,) = model([image])
    if not all(bool(one.isfinite().all()) for one in found.values()):
        raise NonFiniteError(f"{type(model).__name__} returns NaN or infinity; load other weights, or give real images")
    return found  # type: ignore[no-any-return]


def _traced(model: nn.Module, image: Tensor, outputs: list[str]) -> Any:
    """Return an `onnx.ModelProto` of a detector.

    Raises:
        ExportError: PyTorch cannot convert it.
    """
    import onnx

    file = io.BytesIO()
    trace: Any = torch.onnx.export  # whose annotations are those of the newer exporter, which takes no stream
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about itself and what it takes for constant
            trace(
                model,
                ([image],),
                file,
                dynamo=False,
                opset_version=_OPSET,
                input_names=["image"],
                output_names=outputs,
                dynamic_axes={"image": {1: "height", 2: "width"}} | {name: {0: "n"} for name in outputs},
            )
    except Exception as error:  # whatever tracing or the network's own code raises
        raise ExportError(f"torch.onnx.export cannot convert the detector: {first_line(error)}") from error
    return onnx.load_from_string(file.getvalue())


def _compare(model: nn.Module, path: Path, images: list[Tensor], outputs: list[str], progress: Progress) -> Comparison:
    """Compare the boxes of a file with those of the network in PyTorch.

    Raises:
        ExportError: the file does not run.
    """
    run = open_file(path, "onnx")
    difference = relative = 0.0
    boxes = matched = 0
    for number in progress(range(len(images)), len(images), "compare boxes"):
        image = images[number]
        expected = _detections(model, image)
        try:
            found = dict(zip(outputs, run([image.contiguous()]), strict=True))
        except Exception as error:  # the engine has its own classes of errors
            raise ExportError(f"the exported file does not run: {first_line(error)}") from error
        pairs = _match(found, expected)
        boxes += max(len(expected["scores"]), len(found["scores"]))
        matched += len(pairs)
        for row, other in pairs:
            box = float((found["boxes"][row] - expected["boxes"][other]).abs().max())
            score = float((found["scores"][row] - expected["scores"][other]).abs())
            difference = max(difference, box)
            relative = max(relative, box / max(image.shape[1:]), score)
    return Comparison(difference, relative, None, len(images), boxes=boxes, matched=matched)


def _match(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[tuple[int, int]]:
    """Return pairs of boxes of one class that overlap by more than nine tenths, the most alike first."""
    from torchvision.ops import box_iou

    if not len(found["scores"]) or not len(expected["scores"]):
        return []
    # A box that was clipped to the border may have no area, and then no overlap with itself: all get a margin.
    margin = torch.tensor([-0.5, -0.5, 0.5, 0.5], dtype=torch.float64)
    overlap = box_iou(found["boxes"] + margin, expected["boxes"] + margin)
    # Boxes of one class that overlap so much are one box, or were one before duplicates were removed.
    overlap[found["labels"][:, None] != expected["labels"]] = 0
    pairs, free = [], (set(range(overlap.shape[0])), set(range(overlap.shape[1])))
    # Several boxes without area at one place differ in probability alone.
    likeness = (overlap - (found["scores"][:, None] - expected["scores"]).abs()).flatten()
    close = (overlap > 0.9).flatten().nonzero().flatten()
    for place in close[likeness[close].argsort(descending=True)].tolist():
        row, other = divmod(place, overlap.shape[1])
        if row in free[0] and other in free[1]:
            pairs.append((row, other))
            free[0].remove(row)
            free[1].remove(other)
    return pairs


def _check(comparison: Comparison, tolerance: float) -> None:
    """Check a comparison.

    Raises:
        ExportError: boxes are missing, or differ by more than the tolerance.
    """
    boxes, matched = comparison.boxes or 0, comparison.matched or 0
    if boxes - matched > max(1.0, _UNMATCHED * boxes):
        raise ExportError(
            f"{boxes - matched} of {boxes} boxes of the exported file and of PyTorch have no counterpart; if the "
            f"network is not trained, overlaps and probabilities of boxes may be so close to those at which boxes are "
            f"removed that rounding decides"
        )
    if comparison.relative > tolerance:
        raise ExportError(
            f"boxes of the exported file differ from PyTorch's by {comparison.relative:.2g} of the image or in their "
            f"probability, and {tolerance:g} is accepted: give a larger {argument('tolerance')} if that is acceptable"
        )
