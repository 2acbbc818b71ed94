"""Run ONNX files with ONNX Runtime on the CPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from senet.deployment.engines.engine import Port, import_engine
from senet.deployment.metadata import read_onnx
from senet.utils.choices import ExportFormat
from senet.utils.errors import ModelFileError

__all__ = ["OnnxEngine"]

# By the types of ONNX Runtime, such as "tensor(float)".
_DTYPES = {
    "float": torch.float32,
    "float16": torch.float16,
    "double": torch.float64,
    **{name: getattr(torch, name) for name in ("uint8", "int8", "int16", "int32", "int64", "bool")},
}
# Errors only: warnings are about graphs that senet did not write.
_LOG_LEVEL = 3


class OnnxEngine:
    """An ONNX file in ONNX Runtime.

    Args:
        path: of the file.
        threads: number of threads; None is one per core.
        batch: length of the batch axis, where the file leaves it open: a fixed one is faster. None leaves it open.
    """

    format: ExportFormat = "onnx"

    def __init__(self, path: Path, threads: int | None = None, batch: int | None = None) -> None:
        runtime = import_engine("onnxruntime", path)
        options = runtime.SessionOptions()
        options.log_severity_level = _LOG_LEVEL
        options.intra_op_num_threads = threads or 0
        if batch is not None:
            for axis in _batch_axes(runtime, path):
                options.add_free_dimension_override_by_name(axis, batch)
        self._session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.metadata = read_onnx(self._session, path)
        self.inputs, self.outputs = (
            tuple(_port(value, path) for value in values)
            for values in (self._session.get_inputs(), self._session.get_outputs())
        )

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the network, see `Engine.run`."""
        feed = {port.name: value.numpy() for port, value in zip(self.inputs, inputs, strict=True)}
        return [torch.from_numpy(output) for output in self._session.run(None, feed)]


def _batch_axes(runtime: Any, path: Path) -> set[str]:
    """Return the names of the first axes of the inputs that the file leaves open."""
    options = runtime.SessionOptions()
    options.log_severity_level = _LOG_LEVEL
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    firsts = [value.shape[0] for value in session.get_inputs() if value.shape]
    return {axis for axis in firsts if isinstance(axis, str)}


def _port(value: Any, path: Path) -> Port:
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _DTYPES:
        raise ModelFileError(f"{path} has {value.name!r} of the type {value.type}, which senet does not run")
    lengths = tuple(length if isinstance(length, int) else None for length in value.shape)
    return Port(value.name, lengths, _DTYPES[kind])
