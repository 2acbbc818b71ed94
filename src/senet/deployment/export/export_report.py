"""What an export wrote, and how its results differ from PyTorch's."""

from dataclasses import dataclass
from typing import Any

from senet.utils.choices import ExportFormat, Precision

__all__ = ["Comparison", "ExportReport"]


@dataclass(frozen=True)
class Comparison:
    """Results of an exported file against those of the network in PyTorch, in float32.

    Attributes:
        difference: largest absolute difference of an output.
        relative: largest difference, relative to the largest absolute value of the same output.
        top1: share of images with the same most probable class, 0 to 1; None if the output is not (N, K).
        inputs: number of inputs (images) that were compared.
        boxes: number of a detector's boxes in them, in the file or in PyTorch, whichever has more; None of others. The
            differences are of the boxes that both have, `relative` to the longer side of the image, or of their
            probabilities.
        matched: number of these boxes.

    Examples:
        >>> report = senet.export(senet.create_model("se_resnet20").eval(), "model.pt2")
        >>> report.comparison.relative < 1e-4, report.comparison.top1
        (True, 1.0)
    """

    difference: float
    relative: float
    top1: float | None
    inputs: int
    boxes: int | None = None
    matched: int | None = None


@dataclass(frozen=True)
class ExportReport:
    """An exported file.

    Attributes:
        path: of the file; OpenVINO's weights are next to it, in a file ending in `.bin`.
        format: "onnx", "openvino" or "torch".
        precision: "fp32", "fp16", "bf16" or "int8".
        size: bytes of all files.
        inputs: shape and dtype of each input, by name; an axis of any length is -1.
        outputs: names of the outputs.
        comparison: with the network in PyTorch.
        rewritten: report of `senet.deploy`; None with `rewrite=False`.

    Examples:
        >>> report = senet.export(senet.create_model("se_resnet20").eval(), "model.pt2")
        >>> report.format, report.precision, report.outputs
        ('torch', 'fp32', ['output'])
    """

    path: str
    format: ExportFormat
    precision: Precision
    size: int
    inputs: dict[str, str]
    outputs: list[str]
    comparison: Comparison
    rewritten: Any
