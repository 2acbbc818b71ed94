"""Quantize ONNX networks with ONNX Runtime's tools: QuantizeLinear and DequantizeLinear around 8-bit nodes (QDQ)."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from senet.deployment.quantization.calibration import IMAGES, Array, check_batches
from senet.deployment.quantization.keep_float import KEEP_FLOAT, KeepFloat, kept_nodes
from senet.deployment.quantization.se_nodes import Node, einsum_kind
from senet.utils.choices import check_choice

__all__ = ["onnx_input", "onnx_nodes", "quantize_onnx"]

# Images of a run in calibration, which keeps the outputs of every node for as many.
_BATCH = 16


def quantize_onnx(
    model: Any,
    calibration: Iterable[Tensor] | None,
    keep_float: KeepFloat = KEEP_FLOAT["onnx"],
    *,
    images: int = IMAGES,
) -> Any:
    """Quantize weights and activations of an ONNX network to 8 bits.

    Weights are symmetric int8 with a scale for each channel, activations uint8 with a scale and zero point for each
    tensor, which are the smallest and largest values that calibration has seen.

    Args:
        model: an `onnx.ModelProto`, or the path of a file.
        calibration: batches (N, C, H, W) as the network takes them.
        keep_float: what of SE stays in float32.
        images: the most images of calibration to use.

    Returns:
        A new `onnx.ModelProto`.

    Raises:
        TypeError: see `check_batches`.
        ValueError: see `check_batches`, or the network has several inputs.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    check_choice("keep_float", keep_float, KeepFloat)
    model = onnx.load(str(model)) if isinstance(model, str | PathLike) else model
    name, shape, dtype = onnx_input(model)
    batches = check_batches(calibration, shape, dtype, batch=_BATCH, images=images)
    with TemporaryDirectory(prefix="senet-") as folder, _quiet():
        given, prepared, written = (Path(folder, f"{step}.onnx") for step in ("given", "prepared", "written"))
        onnx.save(model, str(given))
        # Folds batch norms into convolutions: they would be quantized one by one.
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        named = onnx.load(str(prepared))
        _name_nodes(named)
        onnx.save(named, str(prepared))
        quantize_static(
            prepared,
            written,
            _Reader(name, batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept_nodes(onnx_nodes(named), keep_float),
            calibrate_method=CalibrationMethod.MinMax,
        )
        quantized = onnx.load(str(written))
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(model.metadata_props)
    return quantized


class _Reader:
    """Calibration data in the form of ONNX Runtime's `CalibrationDataReader`."""

    def __init__(self, name: str, batches: list[Array]) -> None:
        self._feeds = iter([{name: batch} for batch in batches])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._feeds, None)


def onnx_input(model: Any) -> tuple[str, list[int | None], torch.dtype]:
    """Return the name, shape and dtype of a network's input; None for an axis of any length."""
    from onnx.helper import tensor_dtype_to_np_dtype

    weights = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in weights]
    if len(inputs) != 1:
        raise ValueError(f"only networks of one input can be quantized, and this one has {len(inputs)}")
    kind = inputs[0].type.tensor_type
    shape = [axis.dim_value if axis.HasField("dim_value") else None for axis in kind.shape.dim]
    return inputs[0].name, shape, getattr(torch, tensor_dtype_to_np_dtype(kind.elem_type).name)


def _name_nodes(model: Any) -> None:
    """Give every node a name of its own, by which it can be excluded."""
    names: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in names:
            node.name = f"{node.op_type}_{number}"
        names.add(node.name)


def onnx_nodes(model: Any) -> list[Node]:
    """Return the nodes of a graph without constants."""
    weights = {one.name for one in model.graph.initializer}
    sources = {output: node.name for node in model.graph.node for output in node.output if node.op_type != "Constant"}
    sources |= {one.name: one.name for one in model.graph.input if one.name not in weights}
    return [
        Node(node.name, _kind(node), tuple(sources[name] for name in node.input if name in sources))
        for node in model.graph.node
        if node.op_type != "Constant"
    ]


def _kind(node: Any) -> str:
    equation = next((one.s.decode() for one in node.attribute if one.name == "equation"), None)
    return str(node.op_type) if equation is None else einsum_kind(equation)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the hints of ONNX Runtime's tools, which write to the root logger, out of a program's log."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
