"""Capture a network and write it to a temporary path, in each format and precision."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from torch import Tensor, nn
from torch.export import ExportedProgram

from senet.deployment.engines.openvino_engine import weights_of
from senet.deployment.export.capture import capture
from senet.deployment.export.onnx_file import onnx_model, write_onnx_model
from senet.deployment.export.openvino_file import atomic_pair, openvino_model, write_openvino_model
from senet.deployment.export.torch_file import write_torch_program
from senet.deployment.metadata import Metadata
from senet.deployment.quantization import quantize_onnx, quantize_openvino
from senet.graph.example_inputs import Example
from senet.utils.choices import ExportAxis, ExportFormat
from senet.utils.files import atomic_path, sweep_stale

__all__ = ["Captured", "file_size", "temporary", "write"]


@dataclass(frozen=True)
class Captured:
    """A network as it is written.

    Attributes:
        model: rewritten, in the precision of the file unless that is int8.
        example: inputs of `model`.
        dynamic: axes of any length.
        inputs: names of the inputs.
        outputs: names of the outputs.
        calibration: batches of inputs, for int8.
        metadata: of the file.
    """

    model: nn.Module
    example: Example
    dynamic: tuple[ExportAxis, ...]
    inputs: list[str]
    outputs: list[str]
    calibration: list[Tensor]
    metadata: Metadata

    @property
    def quantized(self) -> bool:
        """Whether the file is quantized to 8 bits."""
        return self.metadata.precision == "int8"

    def program(self) -> ExportedProgram:
        """Capture the network.

        Raises:
            ExportError: PyTorch cannot capture it.
        """
        return capture(self.model, self.example, self.dynamic)


def write(captured: Captured, format: ExportFormat, path: Path) -> None:
    """Write a network to a file, and OpenVINO's weights next to it.

    Raises:
        ExportError: the network cannot be converted.
        OSError: the file cannot be written.
        ValueError: the calibration data do not fit.
    """
    _WRITERS[format](captured, path)


def _onnx(captured: Captured, path: Path) -> None:
    model = onnx_model(captured.program(), captured.inputs, captured.outputs)
    if captured.quantized:
        model = quantize_onnx(model, captured.calibration)
    write_onnx_model(model, path, captured.metadata)


def _openvino(captured: Captured, path: Path) -> None:
    model = openvino_model(captured.program(), captured.inputs, captured.outputs)
    if captured.quantized:
        model = quantize_openvino(model, captured.calibration)
    write_openvino_model(model, path, captured.metadata, fp16=captured.metadata.precision == "fp16")


def _torch(captured: Captured, path: Path) -> None:
    write_torch_program(captured.program(), path, captured.metadata)


_WRITERS: dict[ExportFormat, Callable[[Captured, Path], None]] = {
    "onnx": _onnx,
    "openvino": _openvino,
    "torch": _torch,
}


def temporary(path: str | PathLike[str], format: ExportFormat) -> AbstractContextManager[Path]:
    """Return a context with a temporary path, whose file replaces `path` if the block ends without an error.

    Temporary files that killed exports to `path` left are removed.
    """
    if format == "openvino":
        return atomic_pair(path)
    sweep_stale(path)
    return atomic_path(path)


def file_size(path: str | PathLike[str], format: ExportFormat) -> int:
    """Return the bytes of an exported file, with its weights."""
    weights = [weights_of(path)] if format == "openvino" else []
    return sum(one.stat().st_size for one in (Path(path), *weights))
