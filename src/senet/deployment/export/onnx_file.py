"""Write ONNX files with `torch.onnx.export`."""

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from senet.deployment.metadata import Metadata, write_onnx
from senet.utils.errors import ExportError, first_line

__all__ = ["onnx_model", "write_onnx_model"]

# Bytes of a protocol buffer.
LARGEST = 2**31 - 1


def onnx_model(program: ExportedProgram, inputs: list[str], outputs: list[str]) -> Any:
    """Convert a captured network.

    Args:
        program: the network.
        inputs: names of the inputs.
        outputs: names of the outputs.

    Returns:
        An `onnx.ModelProto`.

    Raises:
        ExportError: an operation has no counterpart in ONNX, or the weights exceed 2 GB.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size > LARGEST:
        raise ExportError(
            f"the weights have {size / 1e9:.1f} GB, and an ONNX file holds at most 2 GB; export with precision fp16, "
            f"or in the format openvino or torch"
        )
    try:
        with warnings.catch_warnings():
            # Of PyTorch's exporter, on its own use of its own functions.
            warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=inputs,
                output_names=outputs,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause: Exception = error
        while isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        raise ExportError(f"torch.onnx.export cannot convert the network: {first_line(cause)}") from error
    assert exported is not None
    model = exported.model_proto
    _name_axes(model.graph)
    return model


def _name_axes(graph: Any) -> None:
    """Name the dynamic axes of images; PyTorch names them "s77" and "s53"."""
    names: dict[str, str] = {}
    for port in graph.input:
        axes = port.type.tensor_type.shape.dim
        for axis, name in zip(axes, ("batch", "channels", "height", "width"), strict=False):
            if axis.dim_param and name not in names.values():
                names.setdefault(axis.dim_param, name)
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:  # may be an expression, such as "(s53 + 1)//2"
                axis.dim_param = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), axis.dim_param)


def write_onnx_model(model: Any, path: Path, metadata: Metadata) -> None:
    """Write an `onnx.ModelProto` with its metadata to one file."""
    import onnx

    write_onnx(model, metadata)
    onnx.save(model, str(path))
